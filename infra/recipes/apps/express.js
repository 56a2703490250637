// Express with sessions before its static files. Both servers share one signed session through the cookie's name only: the
// session itself is kept in a file, as a store that all servers share.
const express = require('express');
const session = require('express-session');
const fs = require('fs');
const os = require('os');
const path = require('path');

class Files extends session.Store {
  file(sid) { return path.join(os.tmpdir(), `recipe-session-${process.env.SECRET}-${sid.replace(/[^\w-]/g, '_')}`); }
  get(sid, done) { fs.readFile(this.file(sid), 'utf8', (error, text) => done(null, error ? null : JSON.parse(text))); }
  set(sid, value, done) {
    const part = `${this.file(sid)}.${process.pid}`;
    fs.writeFileSync(part, JSON.stringify(value));
    fs.renameSync(part, this.file(sid));
    done();
  }
  destroy(sid, done) { fs.rm(this.file(sid), { force: true }, done); }
}

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'recipe-static-'));
fs.writeFileSync(path.join(directory, 'app.js'), '// the same for all\n'.repeat(200));
const app = express();
app.set('trust proxy', 'loopback');
app.use(session({ name: 'sid', secret: process.env.SECRET, resave: false, saveUninitialized: true, store: new Files() }));
app.use('/static', express.static(directory, { maxAge: '1h' }));
app.use(express.urlencoded({ extended: false }));
app.post('/login', (request, response) => { request.session.name = request.body.name; response.send('welcome'); });
app.get('/me', (request, response) => response.send(`you are ${request.session.name || 'nobody'}.`));
app.listen(Number(process.env.PORT), '127.0.0.1');
