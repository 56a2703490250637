//! A real RabbitMQ for tests: private ports, a directory of its own, gone when nobody uses it.
//!
//! A broker takes seconds to start and a vhost milliseconds, so tests share one broker ([`Broker::shared`]) across
//! processes (a runner may give each test its own) and take a vhost each. Whoever stops or kills a broker starts one
//! of its own ([`Broker::start`]). There is no fake: it would only repeat what we believe about acks.
//!
//! ```text
//! <temp>/standfast-brokers-<uid>/lock        held while a broker is looked for, started or given up
//!                                users       held shared by each process that uses the shared broker
//!                                shared      directory of the shared broker, when it is ready
//!                                <pid>-<n>/  a broker's configuration, data, logs
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// How long a broker may take to start: this happens on busy machines.
const START: Duration = Duration::from_secs(60);
const COOKIE: &str = "standfast-tests";
const NODE: &str = "standfast@localhost";
/// Where distributions keep the script itself; the one in `PATH` may insist on another user.
const SERVERS: [&str; 2] = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/sbin/rabbitmq-server"];

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running broker.
pub struct Broker {
    dir: PathBuf,
    ports: Ports,
    /// Its watcher, when it is ours alone.
    own: Mutex<Option<Child>>,
    _users: Option<File>,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    dist: u16,
    epmd: u16,
}

impl Broker {
    /// The broker that the tests of this user share.
    ///
    /// # Errors
    /// One line: RabbitMQ is not installed, or did not start (with the end of its log).
    pub fn shared() -> io::Result<Self> {
        let home = home()?;
        let lock = File::create(home.join("lock"))?;
        lock.lock()?;
        let users = File::create(home.join("users"))?;
        users.lock_shared()?;
        let ready = home.join("shared");
        if let Ok(dir) = fs::read_to_string(&ready) {
            let dir = PathBuf::from(dir);
            if let Some(ports) =
                read_ports(&dir).filter(|p| TcpStream::connect(("127.0.0.1", p.amqp)).is_ok())
            {
                return Ok(Self { dir, ports, own: Mutex::new(None), _users: Some(users) });
            }
        }
        let (dir, ports) = prepare(&home, "")?;
        let mut child = spawn(&dir, ports, Some(&home))?;
        wait_until_up(&dir, ports, &mut child)?;
        fs::write(&ready, dir.as_os_str().as_encoded_bytes())?;
        Ok(Self { dir, ports, own: Mutex::new(None), _users: Some(users) })
    }

    /// A broker of one's own, which may be stopped and killed. It ends with its owner.
    ///
    /// # Errors
    /// As [`Broker::shared`].
    pub fn start() -> io::Result<Self> {
        Self::start_with("")
    }

    /// As [`Broker::start`], with these lines in its `rabbitmq.conf`.
    ///
    /// # Errors
    /// As [`Broker::shared`].
    pub fn start_with(config: &str) -> io::Result<Self> {
        let (dir, ports) = prepare(&home()?, config)?;
        let mut child = spawn(&dir, ports, None)?;
        let up = wait_until_up(&dir, ports, &mut child);
        let broker = Self { dir, ports, own: Mutex::new(Some(child)), _users: None };
        up.map(|()| broker)
    }

    /// The port it listens on for AMQP, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Makes a fresh vhost; its URL.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn vhost(&self) -> io::Result<String> {
        let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let made = self.eval(&format!(
            "rabbit_vhost:add(<<\"{name}\">>, <<\"test\">>), rabbit_auth_backend_internal:set_permissions(\
             <<\"guest\">>, <<\"{name}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"test\">>)."
        ))?;
        if !made.contains("ok") {
            return Err(io::Error::other(format!("no vhost: {made}")));
        }
        Ok(format!("amqp://guest:guest@127.0.0.1:{}/{name}", self.ports.amqp))
    }

    /// Evaluates an Erlang expression (with its full stop) in the broker.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn eval(&self, expression: &str) -> io::Result<String> {
        eval(&self.dir, self.ports, expression)
    }

    /// Stops it in order. Only for a broker of one's own.
    ///
    /// # Errors
    /// It is shared, or does not stop.
    pub fn stop(&self) -> io::Result<()> {
        self.end(|broker| broker.eval("init:stop().").map(drop))
    }

    /// Kills it with -9. Only for a broker of one's own.
    ///
    /// # Errors
    /// It is shared, or was not running.
    pub fn kill(&self) -> io::Result<()> {
        self.end(|broker| {
            let pid = fs::read_to_string(broker.dir.join("pid"))?;
            let killed = Command::new("kill").args(["-9", pid.trim()]).status()?;
            if killed.success() { Ok(()) } else { Err(io::Error::other("the broker was not running")) }
        })
    }

    /// Starts it again after [`Broker::stop`] or [`Broker::kill`], on the same port with the same data.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_again(&self) -> io::Result<()> {
        let mut child = spawn(&self.dir, self.ports, None)?;
        let up = wait_until_up(&self.dir, self.ports, &mut child);
        *self.own.lock().map_err(|_| io::Error::other("poisoned"))? = Some(child);
        up
    }

    fn end(&self, how: impl FnOnce(&Self) -> io::Result<()>) -> io::Result<()> {
        let mut own = self.own.lock().map_err(|_| io::Error::other("poisoned"))?;
        let child =
            own.as_mut().ok_or_else(|| io::Error::other("not a running broker of this test's own"))?;
        how(self)?;
        child.wait()?;
        *own = None;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Ok(own) = self.own.get_mut() else { return };
        if let Some(mut child) = own.take() {
            if self.eval("init:stop().").is_err()
                && let Ok(pid) = fs::read_to_string(self.dir.join("pid"))
            {
                let _ = Command::new("kill").args(["-9", pid.trim()]).status();
            }
            let _ = child.wait();
        }
        if self._users.is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn home() -> io::Result<PathBuf> {
    // The owner of our own process, without a dependency: /proc is there wherever RabbitMQ's packages are.
    let uid = fs::metadata("/proc/self")?.uid();
    let home = std::env::temp_dir().join(format!("standfast-brokers-{uid}"));
    fs::create_dir_all(&home)?;
    Ok(home)
}

fn server() -> io::Result<&'static str> {
    let found = SERVERS.into_iter().find(|path| Path::new(path).exists());
    found.ok_or_else(|| {
        io::Error::other(
            "RabbitMQ is not installed: infra/test installs it, or apt-get install rabbitmq-server",
        )
    })
}

fn prepare(home: &Path, config: &str) -> io::Result<(PathBuf, Ports)> {
    server()?;
    let dir = home.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
    fs::create_dir_all(&dir)?;
    let listeners = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0"));
    let mut free = Vec::new();
    for listener in &listeners {
        let listener = listener.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
        free.push(listener.local_addr()?.port());
    }
    let ports = Ports { amqp: free[0], dist: free[1], epmd: free[2] };
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\ndisk_free_limit.absolute = 50MB\nlog.console = false\n\
         vm_memory_high_watermark.absolute = 1GB\n{config}\n",
        ports.amqp
    );
    fs::write(dir.join("rabbitmq.conf"), config)?;
    fs::write(dir.join("enabled_plugins"), "[].")?;
    fs::write(dir.join("ports"), format!("{} {} {}", ports.amqp, ports.dist, ports.epmd))?;
    let cookie = dir.join(".erlang.cookie");
    fs::write(&cookie, COOKIE)?;
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
    Ok((dir, ports))
}

fn read_ports(dir: &Path) -> Option<Ports> {
    let text = fs::read_to_string(dir.join("ports")).ok()?;
    let ports: Vec<u16> = text.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    let [amqp, dist, epmd] = ports[..] else { return None };
    Some(Ports { amqp, dist, epmd })
}

fn environment(dir: &Path, ports: Ports) -> Vec<(&'static str, OsString)> {
    let path = |name: &str| dir.join(name).into_os_string();
    vec![
        ("HOME", dir.as_os_str().to_owned()),
        ("ERL_EPMD_PORT", ports.epmd.to_string().into()),
        ("RABBITMQ_NODENAME", NODE.into()),
        ("RABBITMQ_NODE_PORT", ports.amqp.to_string().into()),
        ("RABBITMQ_DIST_PORT", ports.dist.to_string().into()),
        ("RABBITMQ_MNESIA_BASE", path("data")),
        ("RABBITMQ_LOG_BASE", path("log")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_PID_FILE", path("pid")),
        ("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf")),
        // No busy waiting: the machine is the tests' too.
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none".into()),
    ]
}

/// Starts the broker under a shell that waits for its end and takes its epmd along. A shared one is stopped after 20
/// seconds without a user, and leaves nothing.
fn spawn(dir: &Path, ports: Ports, shared: Option<&Path>) -> io::Result<Child> {
    let idle = r#"
        idle=0 stopped=0
        while kill -0 $server 2>/dev/null; do
            sleep 2
            if flock -n -x "$HOME_OF_ALL/users" true; then idle=$((idle + 1)); else idle=0; fi
            [ $idle -ge 10 ] || continue
            flock "$HOME_OF_ALL/lock" sh -c 'flock -n -x "$HOME_OF_ALL/users" rm -f "$HOME_OF_ALL/shared"'
            idle=0
            [ -e "$HOME_OF_ALL/shared" ] && continue
            stopped=1
            echo 'init:stop().' | erl_call -c "$COOKIE" -sname "$NODE" -e
        done
        wait $server
        epmd -port $ERL_EPMD_PORT -kill
        [ $stopped = 0 ] || rm -rf "$HOME"
    "#;
    let simple = "wait $server; epmd -port $ERL_EPMD_PORT -kill";
    let script = format!("{} & server=$!; {}", server()?, if shared.is_some() { idle } else { simple });
    let log = File::create(dir.join("output"))?;
    Command::new("sh")
        .args(["-c", &script])
        .envs(environment(dir, ports))
        .env("HOME_OF_ALL", shared.unwrap_or(dir))
        .env("COOKIE", COOKIE)
        .env("NODE", NODE)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A signal to the tests' process group is not for it: it ends when its users end.
        .process_group(0)
        .spawn()
}

fn wait_until_up(dir: &Path, ports: Ports, child: &mut Child) -> io::Result<()> {
    let end = clock::now() + START;
    loop {
        let answer = match TcpStream::connect(("127.0.0.1", ports.amqp)) {
            Ok(_) => eval(dir, ports, "rabbit:is_running()."),
            Err(error) => Err(error),
        };
        if answer.as_ref().is_ok_and(|answer| answer.contains("true")) {
            return Ok(());
        }
        if clock::now() > end || child.try_wait()?.is_some() {
            let output = fs::read_to_string(dir.join("output")).unwrap_or_default();
            let last = output.trim_end().lines().last().unwrap_or_default();
            let text = format!("RabbitMQ did not start: {answer:?}, {last} (more in {})", dir.display());
            return Err(io::Error::other(text));
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fn eval(dir: &Path, ports: Ports, expression: &str) -> io::Result<String> {
    // Callers all have the same node name by default, and a node talks to one of a name.
    let one_at_a_time = File::create(dir.join("eval"))?;
    one_at_a_time.lock()?;
    let mut child = Command::new("erl_call")
        .args(["-c", COOKIE, "-sname", NODE, "-e"])
        .envs(environment(dir, ports))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        writeln!(input, "{expression}")?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
