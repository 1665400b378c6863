//! Mechanisms that know no domain type: locks, settings, queues with gauges, bytes in flight, time, stopwatches, backoff,
//! time limits of bodies, sockets and their heartbeat, shutdown, codes of messages, budgets of work, sizes of patterns, repair of JSON text,
//! sizes of JSON, words of text, escaping and tokens of text, owners of files, similar names, random numbers,
//! division by weights.

pub mod apportion;
pub mod backoff;
pub mod body;
pub mod budget;
pub mod drain;
pub mod escape;
pub mod heartbeat;
pub mod http;
pub mod inflight;
pub mod mac;
pub mod measure;
pub mod metric;
pub mod names;
pub mod owner;
pub mod pattern;
pub mod queue;
pub mod random;
pub mod secret;
pub mod settings;
pub mod stopwatch;
pub mod surrogates;
pub mod sync;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod time;
pub mod tls;
pub mod tokens;
pub mod wake;
pub mod ws;
