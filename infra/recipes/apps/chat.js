// A socket.io server that says what it hears. It knows only its own clients: long polling works only at one server.
const http = require('http');
const { Server } = require('socket.io');

const server = http.createServer((request, response) => response.end('chat'));
new Server(server).on('connection', (socket) => socket.on('say', (text, heard) => heard(`${process.env.PORT}: ${text}`)));
server.listen(Number(process.env.PORT), '127.0.0.1');
