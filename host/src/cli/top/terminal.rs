//! The terminal as a screen: what a person types comes key by key, and what is shown is shown at once as a whole. It is given back as
//! it was, whatever ends the command.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _, stdin, stdout};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// Another screen, without a cursor; and back. <https://invisible-island.net/xterm/ctlseqs/ctlseqs.html>
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypedKey {
    Character(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Enter,
    Escape,
    /// Ctrl-C.
    Interrupt,
}

/// How a line looks. Only what every terminal has, and no colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Plain,
    Bold,
    /// The one that is chosen.
    Reverse,
}

/// A line of the screen. It is not longer than the screen is wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenLine {
    pub text: String,
    pub look: Look,
}

pub struct Terminal {
    before: Termios,
}

impl Terminal {
    /// `None`: standard input or output is no terminal.
    pub fn take() -> io::Result<Option<Terminal>> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        modes.input_modes -= InputModes::IXON;
        // A read returns what is there, also if that is nothing.
        modes.special_codes[SpecialCodeIndex::VMIN] = 0;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin(), OptionalActions::Now, &modes)?;
        let terminal = Terminal { before };
        write(ENTER)?;
        Ok(Some(terminal))
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }

    pub fn show(&self, lines: &[ScreenLine]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            let end = if at + 1 == lines.len() { "" } else { "\r\n" };
            // Erased first: after a line that fills the screen the cursor still stands on its last character.
            let _ = match line.look {
                Look::Plain => write!(text, "\x1b[K{}{end}", line.text),
                Look::Bold => write!(text, "\x1b[K\x1b[1m{}\x1b[0m{end}", line.text),
                Look::Reverse => write!(text, "\x1b[K\x1b[7m{}\x1b[0m{end}", line.text),
            };
        }
        write(&text)
    }

    /// What was typed since the last look. The input has ended: `None`.
    pub fn keys(&self) -> io::Result<Option<Vec<TypedKey>>> {
        let input = stdin();
        let mut ready = [PollFd::new(&input, PollFlags::IN)];
        if poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
            return Ok(Some(Vec::new()));
        }
        let mut bytes = [0; 256];
        let read = rustix::io::read(&input, &mut bytes)?;
        let gone = read == 0 && ready[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        Ok((!gone).then(|| keys(&bytes[..read])))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // That it could not be done cannot be said: the terminal is gone.
        let _ = write(LEAVE);
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The keys that these bytes mean; others are left out.
fn keys(bytes: &[u8]) -> Vec<TypedKey> {
    const SEQUENCES: [(&[u8], TypedKey); 6] = [
        (b"\x1b[A", TypedKey::Up),
        (b"\x1bOA", TypedKey::Up),
        (b"\x1b[B", TypedKey::Down),
        (b"\x1bOB", TypedKey::Down),
        (b"\x1b[5~", TypedKey::PageUp),
        (b"\x1b[6~", TypedKey::PageDown),
    ];
    let (mut keys, mut rest) = (Vec::new(), bytes);
    while let Some(first) = rest.first() {
        if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| rest.starts_with(sequence)) {
            keys.push(*key);
            rest = &rest[sequence.len()..];
            continue;
        }
        if rest.starts_with(b"\x1b[") || rest.starts_with(b"\x1bO") {
            // Another key, up to its last byte.
            let end = rest[2..].iter().position(|byte| (0x40..0x7f).contains(byte));
            rest = end.map_or(&[], |end| &rest[end + 3..]);
            continue;
        }
        match first {
            0x03 => keys.push(TypedKey::Interrupt),
            b'\r' | b'\n' => keys.push(TypedKey::Enter),
            0x1b => keys.push(TypedKey::Escape),
            byte if byte.is_ascii_graphic() => keys.push(TypedKey::Character(char::from(*byte))),
            _ => {}
        }
        rest = &rest[1..];
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_the_bytes_that_terminals_send() {
        let all = keys(b"q\x1b[A\x1bOB\x1b[6~\r\x03");
        let keys_of = [
            TypedKey::Character('q'),
            TypedKey::Up,
            TypedKey::Down,
            TypedKey::PageDown,
            TypedKey::Enter,
            TypedKey::Interrupt,
        ];
        assert_eq!(all, keys_of);
        assert_eq!(
            keys(b"\x1b[1;5Cs"),
            [TypedKey::Character('s')],
            "another key is left out as a whole"
        );
        assert_eq!(keys(b"\x1b"), [TypedKey::Escape]);
    }
}
