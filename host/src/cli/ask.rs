//! What a command asks before it changes much.

use std::io::Write as _;

/// Asks for a yes. Whoever cannot read the question, or answer it, says no.
pub fn confirmed(question: &str) -> bool {
    print!("{question} [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
