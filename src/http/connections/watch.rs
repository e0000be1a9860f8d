//! The stage of a connection, and how long it may stay in it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the head of a request may take, from its first byte.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may stay open without a request.
const STILL: Duration = Duration::from_mins(2);
/// How long an answer may wait for the client to read on. Meanwhile it holds what it is made of: a backup's file, a
/// stream's place.
const UNREAD: Duration = Duration::from_mins(1);

/// The stage of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No request has begun.
    Idle,
    /// A part of a head has come.
    Head,
    /// A head has come, but not all of its body. The body limits how long that may take.
    Body,
    /// A request is being answered, however long that takes.
    Answer,
    /// The connection speaks another protocol now, which has its own deadlines.
    HandedOver,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    /// When the stage began.
    since: Instant,
    /// When a byte last came or went.
    moved: Instant,
    /// Whether a body was left unread: bytes of it that still come would answer our last words with a reset.
    is_unread: bool,
}

/// The watch over one connection.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    end: CancellationToken,
}

impl Watch {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let state = State { stage: Stage::Idle, since: now, moved: now, is_unread: false };
        Self { state: Mutex::new(state), end: CancellationToken::new() }
    }

    /// Notes that bytes came.
    pub(super) fn came(&self) {
        let mut state = self.state.lock();
        state.moved = Instant::now();
        if state.stage == Stage::Idle {
            state.enter(Stage::Head);
        }
    }

    /// Notes that bytes went.
    pub(super) fn went(&self) {
        self.state.lock().moved = Instant::now();
    }

    /// Notes that a whole head has come.
    pub(super) fn asked(&self, has_body: bool) {
        self.state.lock().enter(if has_body { Stage::Body } else { Stage::Answer });
    }

    /// Notes that no more of the body is wanted, whether or not all of it has come.
    pub(super) fn body_ended(&self, is_whole: bool) {
        let mut state = self.state.lock();
        state.is_unread |= !is_whole;
        if state.stage == Stage::Body {
            state.enter(Stage::Answer);
        }
    }

    /// Notes that the answer is complete.
    pub(super) fn answered(&self) {
        let mut state = self.state.lock();
        if state.stage != Stage::HandedOver {
            state.enter(Stage::Idle);
        }
    }

    /// Notes that the connection speaks another protocol from now on.
    pub(super) fn handed_over(&self) {
        self.state.lock().enter(Stage::HandedOver);
    }

    /// Whether bytes may still come that will not be read.
    pub(super) fn is_unread(&self) -> bool {
        self.state.lock().is_unread
    }

    /// Returns the time by which something must come, if there is one.
    pub(super) fn must_come_by(&self) -> Option<Instant> {
        let state = self.state.lock();
        match state.stage {
            Stage::Idle => Some(state.moved + STILL),
            Stage::Head => Some(state.since + HEAD),
            Stage::Body | Stage::Answer | Stage::HandedOver => None,
        }
    }

    /// Returns the time by which the client must take what is written.
    pub(super) fn must_go_by(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.stage != Stage::HandedOver).then(|| state.moved + UNREAD)
    }

    /// Returns since when the connection is idle, if it is; it may be given up for another then.
    pub(super) fn spare_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        matches!(state.stage, Stage::Idle | Stage::Head | Stage::Body).then_some(state.since)
    }

    /// Ends the connection.
    pub(super) fn give_up(&self) {
        self.end.cancel();
    }

    /// Returns when the connection has to end.
    pub(super) async fn given_up(&self) {
        self.end.cancelled().await;
    }

    /// Whether the connection was already given up.
    #[cfg(test)]
    pub(super) fn is_given_up(&self) -> bool {
        self.end.is_cancelled()
    }
}

impl State {
    fn enter(&mut self, stage: Stage) {
        (self.stage, self.since) = (stage, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::{STILL, UNREAD, Watch};

    #[test]
    fn each_stage_has_its_own_deadline() {
        let begun = Instant::now();
        let watch = Watch::new();
        assert!(watch.must_come_by().is_some_and(|deadline| deadline >= begun + STILL));
        watch.came();
        let deadline = watch.must_come_by();
        assert!(deadline.is_some_and(|deadline| deadline < begun + STILL), "from the first byte on");
        watch.came();
        assert_eq!(watch.must_come_by(), deadline, "more bytes buy no more time");
        assert!(watch.spare_since().is_some(), "half a head may be given up");
        watch.asked(true);
        assert_eq!(watch.must_come_by(), None, "the body knows");
        assert!(watch.spare_since().is_some(), "half a body, too");
        watch.body_ended(true);
        assert_eq!((watch.must_come_by(), watch.spare_since()), (None, None), "who is answered stays");
        let answered = Instant::now();
        watch.went();
        let read = watch.must_go_by();
        assert!(read.is_some_and(|deadline| deadline >= answered + UNREAD && deadline < answered + STILL));
        watch.answered();
        assert!(watch.must_come_by().is_some_and(|deadline| deadline >= answered + STILL));
        watch.handed_over();
        watch.answered();
        assert_eq!((watch.must_come_by(), watch.must_go_by(), watch.spare_since()), (None, None, None));
    }

    #[test]
    fn what_is_left_unread_is_known() {
        let watch = Watch::new();
        watch.asked(true);
        watch.body_ended(true);
        assert!(!watch.is_unread());
        watch.asked(true);
        watch.body_ended(false);
        assert!(watch.is_unread());
    }
}
