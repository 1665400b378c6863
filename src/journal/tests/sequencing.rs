//! The order of announcements.

use tokio::sync::oneshot;

use super::super::log::Log;
use super::super::sequencer::{Durable, Exhausted, Sequencer, Ticket};
use super::*;

struct Line {
    sequencer: Arc<Sequencer>,
    heard: Arc<Heard>,
    log: Arc<Log>,
}

impl Line {
    fn new() -> Self {
        let (sequencer, heard) = (Sequencer::new(10, 100), Arc::new(Heard::default()));
        sequencer.set_tail(heard.clone());
        Self { sequencer, heard, log: Log::empty(call("c_1")) }
    }

    /// A batch of one event at the ticket's order.
    fn durable(&self, ticket: &Ticket) -> Durable {
        let order = ticket.first_order;
        let record = Record { seq: 1, order, header: Header::default(), frame: Bytes::new(), private: Bytes::new() };
        let commit = Commit { head: ticket.first_order, records: vec![Arc::new(record)] };
        Durable { log: Arc::clone(&self.log), commit, answer: None }
    }

    fn heard(&self) -> Vec<u64> {
        self.heard.0.lock().unwrap().iter().map(|(_, _, order)| *order).collect()
    }
}

#[test]
fn a_batch_waits_for_those_with_a_lower_order() {
    for first_fails in [false, true] {
        let line = Line::new();
        let [first, second, third] = [(); 3].map(|()| line.sequencer.reserve(1).expect("orders"));
        let durable = line.durable(&third);
        let Some(Err(mut last)) = third.durable(durable) else { panic!("the third one does not wait") };
        let (sender, mut receiver) = oneshot::channel();
        let durable = Durable { answer: Some(sender), ..line.durable(&second) };
        assert!(second.durable(durable).is_none(), "its waiter is told");
        assert_eq!((line.heard(), line.sequencer.announced(), line.log.visible()), (vec![], 9, 0));
        assert!(last.try_recv().is_err() && receiver.try_recv().is_err());
        if first_fails {
            drop(first);
        } else {
            let durable = line.durable(&first);
            let Some(Ok(commit)) = first.durable(durable) else { panic!("its turn is now") };
            assert_eq!(commit.head, 10);
        }
        assert_eq!(line.heard(), if first_fails { vec![11, 12] } else { vec![10, 11, 12] });
        assert_eq!((line.sequencer.announced(), line.log.visible()), (12, 12));
        assert_eq!(receiver.try_recv().expect("told").expect("commit").head, 11);
        assert_eq!(last.try_recv().expect("told").expect("commit").head, 12);
    }
}

#[test]
fn no_order_is_handed_out_that_is_not_reserved() {
    let line = Line::new();
    let ticket = line.sequencer.reserve(89).expect("orders");
    assert_eq!((ticket.first_order, ticket.last_order), (10, 98));
    assert_eq!(line.sequencer.reserve(2).err(), Some(Exhausted));
    line.sequencer.extend(101);
    assert_eq!(line.sequencer.reserve(2).expect("orders").first_order, 99);
    assert_eq!(line.sequencer.left(), 0);
}

#[test]
fn waiting_ends_with_the_batch_whatever_becomes_of_it() {
    let line = Line::new();
    let ticket = line.sequencer.reserve(3).expect("orders");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| line.sequencer.wait_for(12));
        drop(ticket);
        waiter.join().expect("ended");
    });
    line.sequencer.wait_for(12);
}
