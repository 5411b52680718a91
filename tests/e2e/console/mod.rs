//! The console: who is let in, what is answered to whom, and, in a real browser, what a viewer sees and does.

mod http;
