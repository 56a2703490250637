//! One running program, as the node sees it: its keeper, and its pipes.

use std::{io, os::fd::OwnedFd, process::Stdio, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::Child,
};

use crate::helper::{Helper, Order, Spec, Told};

/// Bytes of the error output's end that are kept.
const STDERR_MAX: usize = 2_048;

/// A program under its keeper. Dropped, the keeper ends everything at once; that it does so by itself, when it sees
/// the end of the socket, is why it also happens when this process is killed.
pub struct Program {
    told: Lines<BufReader<OwnedReadHalf>>,
    orders: OwnedWriteHalf,
    keeper: Child,
}

impl Program {
    /// Starts a keeper, and tells it what to run.
    pub async fn start(helper: &Helper, spec: &Spec) -> io::Result<(Self, Pipes)> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let mut process = helper.process("keep");
        process.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C at the terminal is for the node, which ends programs in its own time.
        let mut keeper = process.process_group(0).spawn()?;
        drop(process); // and with it our copy of its end of the socket
        let (told, mut orders) = ours.into_split();
        let pipes = Pipes::new(keeper.stdout.take(), keeper.stderr.take());
        orders.write_all(&spec.encode()?).await?;
        Ok((Self { told: BufReader::new(told).lines(), orders, keeper }, pipes))
    }

    /// What the keeper tells next; nothing when it and all that it kept has ended. Cancel safe.
    pub async fn told(&mut self) -> Option<Told> {
        match self.told.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).ok(),
            _ => None,
        }
    }

    /// Gives an order. A keeper that does not hear it has ended.
    pub async fn order(&mut self, order: Order) {
        let _ = self.orders.write_all(&order.encode()).await;
    }

    /// Waits until the keeper has ended; false if it was not by its own will, so that something may be left.
    pub async fn gone(&mut self) -> bool {
        while self.told().await.is_some() {}
        self.keeper.wait().await.is_ok_and(|status| status.success())
    }
}

/// What a program writes.
pub struct Pipes {
    out: Option<Pipe>,
    err: Option<Pipe>,
    /// All of the output, until it is too much.
    pub head: Vec<u8>,
    /// The end of the error output.
    tail: Vec<u8>,
    most: usize,
}

type Pipe = Box<dyn AsyncRead + Unpin>;

/// It wrote more than it may.
pub struct TooMuch;

impl Pipes {
    fn new(
        out: Option<impl AsyncRead + Unpin + 'static>,
        err: Option<impl AsyncRead + Unpin + 'static>,
    ) -> Self {
        let out = out.map(|pipe| Box::new(pipe) as Pipe);
        let err = err.map(|pipe| Box::new(pipe) as Pipe);
        Self { out, err, head: Vec::new(), tail: Vec::new(), most: usize::MAX }
    }

    /// At most so many bytes of output.
    pub fn limit(&mut self, most: usize) {
        self.most = most;
    }

    /// Reads both until they are closed, or until there is too much output. Cancel safe.
    pub async fn read(&mut self) -> Result<(), TooMuch> {
        let (mut a, mut b) = (vec![0; 16 * 1024], vec![0; STDERR_MAX]);
        while self.out.is_some() || self.err.is_some() {
            tokio::select! {
                n = next(&mut self.out, &mut a), if self.out.is_some() => self.wrote(&a[..n])?,
                n = next(&mut self.err, &mut b), if self.err.is_some() => {
                    self.tail.extend_from_slice(&b[..n]);
                    let surplus = self.tail.len().saturating_sub(STDERR_MAX);
                    self.tail.drain(..surplus);
                }
            }
        }
        Ok(())
    }

    fn wrote(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        if self.head.len() + bytes.len() > self.most {
            return Err(TooMuch);
        }
        self.head.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads on and forgets what is read, so that a program which is ending does not wait for us.
    pub async fn discard(&mut self) {
        while self.read().await.is_err() {
            self.head.clear();
        }
    }

    /// The end of the error output, cut at a character.
    pub fn tail(&self) -> String {
        let whole = |byte: &u8| (*byte as i8) >= -0x40; // no continuation of a character that was cut
        let from = self.tail.iter().take(4).position(whole).unwrap_or(0);
        String::from_utf8_lossy(&self.tail[from..]).trim().to_owned()
    }
}

/// Bytes read; none closes the pipe.
async fn next(pipe: &mut Option<Pipe>, buffer: &mut [u8]) -> usize {
    let read = match pipe {
        Some(open) => open.read(buffer).await.unwrap_or(0),
        None => return std::future::pending().await,
    };
    if read == 0 {
        *pipe = None;
    }
    read
}

/// `exit status: 3`, `signal: 15 (SIGTERM)`.
pub fn describe(raw: i32) -> String {
    let status = crate::helper::status(raw);
    match std::os::unix::process::ExitStatusExt::signal(&status).map(Signal::try_from) {
        Some(Ok(Signal::SIGXCPU)) => format!("{status}: it used more processor time than it may"),
        Some(Ok(Signal::SIGXFSZ)) => format!("{status}: it wrote a longer file than it may"),
        _ => status.to_string(),
    }
}

/// How long a keeper may take to notice that it has nothing more to do.
pub const KEEPER_GRACE: Duration = Duration::from_secs(1);
