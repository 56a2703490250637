// Twelve clients say a hundred things each, over one transport: chat_client.js URL polling|websocket
const { io } = require('socket.io-client');

const [url, transport] = process.argv.slice(2);
const fail = (why) => { console.error(String(why)); process.exit(1); };

async function one(number) {
  const socket = io(url, { transports: [transport], withCredentials: true, forceNew: true, reconnection: false });
  await new Promise((resolve) => { socket.on('connect', resolve); socket.on('connect_error', fail); });
  socket.on('disconnect', (why) => { if (why !== 'io client disconnect') fail(why); });
  const servers = new Set();
  for (let turn = 0; turn < 100; turn += 1) {
    const heard = await socket.timeout(20000).emitWithAck('say', `${number}/${turn}`).catch(fail);
    const [server, text] = heard.split(': ');
    servers.add(server);
    if (text !== `${number}/${turn}`) fail(heard);
  }
  socket.disconnect();
  if (servers.size !== 1) fail(`client ${number} was at ${[...servers]}`);
  return [...servers][0];
}

Promise.all([...Array(12).keys()].map(one)).then((servers) => {
  console.log(`  ${transport}: 12 clients, 100 messages each, at ${new Set(servers).size} servers`);
  process.exit(0);
}, fail);
