//! What a handler task hands on when its redrive is due.

use tokio::sync::{mpsc, oneshot};

/// A round of redrive is due.
#[derive(Debug)]
pub struct RedriveOrder {
    pub handler: String,
    /// To be told when the round is over. If it is dropped, the order comes again. It is closed when the round is to end.
    pub done: oneshot::Sender<()>,
}

/// Where a handler task gives these orders to.
pub type RedriveOrders = mpsc::Sender<RedriveOrder>;
