//! What a command asks before it changes much.

use std::io::stdin;

use rustix::termios::isatty;

use super::{Error, text};

/// Whether a person can answer.
pub fn can_ask() -> bool {
    isatty(stdin())
}

/// Asks for a yes. `otherwise`: what a no means, such as "nothing is replayed".
///
/// # Errors
/// `Err` if the answer is anything but a yes. Where no person can answer, it is returned at once.
pub fn confirmed(question: &str, otherwise: &str) -> Result<(), Error> {
    if !can_ask() {
        return Err(Error::Failed(format!(
            "{otherwise}: the command asks for confirmation, and standard input is not a terminal; --yes does not ask"
        )));
    }
    print!("{question} [y/N] ");
    text::flush();
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(Error::Failed(otherwise.to_owned())),
    }
}
