//! A vendor of LLM answers, scripted down at the socket. It speaks three dialects.
//!
//! Keeps the requests that it received. Knows nothing of the gateway.

mod dialect;

pub use self::dialect::data;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};

pub use super::socket::{Step, chunk, end, reply, stream_head, typed};
use super::{Json, socket};

/// A wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Google,
}

/// A request as received.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Number of the request, from 1.
    pub number: u64,
    /// When the request was complete.
    pub at: Instant,
    /// Path and query.
    pub path: String,
    /// The head; names in lower case, otherwise unchanged.
    pub head: String,
    /// The body.
    pub body: Json,
    /// The vendor's model.
    pub model: String,
    /// Set if a stream is requested.
    pub stream: bool,
    /// When the client closed the connection before the answer ended.
    pub hung_up: Option<Instant>,
}

/// Tokens that an answer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
}

type Script = Arc<dyn Fn(&Asked) -> Vec<Step> + Send + Sync>;

struct State {
    dialect: Dialect,
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
    number: std::sync::atomic::AtomicU64,
    keep: std::sync::atomic::AtomicBool,
    slim: std::sync::atomic::AtomicBool,
}

/// The server. Ends when dropped.
pub struct Vendor {
    pub address: SocketAddr,
    dialect: Dialect,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("lock")
}

impl Vendor {
    /// Starts the server; `script` returns the actions for each request.
    pub async fn start(dialect: Dialect, script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let state = Arc::new(State {
            dialect,
            script: Mutex::new(Arc::new(script)),
            asked: Mutex::default(),
            number: Default::default(),
            keep: true.into(),
            slim: false.into(),
        });
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((socket, _)) = accepted else { continue };
                        connections.spawn(serve(socket, Arc::clone(&shared)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { address, dialect, state, server }
    }

    /// A vendor that answers every request.
    pub async fn good(dialect: Dialect) -> Self {
        Self::start(dialect, move |asked| dialect.answer(asked, &["fi", "ne"], Tokens::of(asked))).await
    }

    /// Sets what the vendor does from now on.
    pub fn script(&self, script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) {
        *locked(&self.state.script) = Arc::new(script);
    }

    /// From now on, requests are counted and not kept.
    pub fn forget(&self) {
        self.state.keep.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    /// From now on, requests are kept without their bodies.
    pub fn slim(&self) {
        self.state.slim.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The vendor's table in a configuration, as endpoint `name`; `more` contains further keys.
    pub fn endpoint(&self, name: &str, more: &str) -> String {
        let (provider, path) = match self.dialect {
            Dialect::OpenAi => ("openai_compatible", "/v1"),
            Dialect::Anthropic => ("anthropic", ""),
            Dialect::Google => ("google", ""),
        };
        format!("[endpoints.{name}]\nprovider = \"{provider}\"\nbase_url = \"http://{}{path}\"\n{more}\n", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        locked(&self.state.asked).clone()
    }

    /// The requests for a model.
    pub fn asked_for(&self, model: &str) -> Vec<Asked> {
        locked(&self.state.asked).iter().filter(|asked| asked.model == model).cloned().collect()
    }

    /// Number of requests so far.
    pub fn count(&self) -> u64 {
        self.state.number.load(std::sync::atomic::Ordering::SeqCst)
    }
}

async fn serve(socket: TcpStream, state: Arc<State>) {
    let take = |head, body: Vec<u8>| {
        let number = state.number.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        let asked = state.dialect.read(number, head, &body);
        if state.keep.load(std::sync::atomic::Ordering::Relaxed) {
            let slim = state.slim.load(std::sync::atomic::Ordering::Relaxed);
            let body = if slim { Json::Null } else { asked.body.clone() };
            locked(&state.asked).push(Asked { body, ..asked.clone() });
        }
        let script = Arc::clone(&*locked(&state.script));
        (number, script(&asked))
    };
    let hung_up = |number| {
        if let Some(asked) = locked(&state.asked).iter_mut().find(|asked| asked.number == number) {
            asked.hung_up = Some(Instant::now());
        }
    };
    socket::serve(socket, take, hung_up).await;
}

impl Tokens {
    /// Token counts that differ from request to request.
    pub fn of(asked: &Asked) -> Self {
        let input = 100 + asked.number;
        Self { input, cached: asked.number % 50, output: 10 + asked.number % 90 }
    }
}
