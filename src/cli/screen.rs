//! Where commands write to people: lines, sparingly coloured on a terminal.
//!
//! Text from files may hold control characters that would drive the terminal; they are replaced. A closed pipe ends
//! output quietly.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use crate::config::Problem;

/// Standard output or error, or a buffer.
pub struct Screen {
    out: Box<dyn Write + Send>,
    coloured: bool,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// What to look at.
    Strong,
    /// What can be passed over.
    Faint,
    /// What went well.
    Good,
    /// What went wrong.
    Bad,
}

// === impl Screen ===

impl Screen {
    /// Standard output.
    pub fn stdout() -> Self {
        Self { out: Box::new(io::stdout()), coloured: may_colour(io::stdout().is_terminal()) }
    }

    /// Standard error.
    pub fn stderr() -> Self {
        Self { out: Box::new(io::stderr()), coloured: may_colour(io::stderr().is_terminal()) }
    }

    /// Writes one line. Text that is not ours has to go through [`printable`] before.
    pub fn line(&mut self, text: impl Display) {
        // A reader that went away wants no more lines, and nobody else can be told.
        let _ = writeln!(self.out, "{text}");
    }

    /// `text` in `tone`.
    pub fn tint(&self, tone: Tone, text: impl Display) -> String {
        // ECMA-48 SGR: bold, faint, green, red.
        let code = match tone {
            Tone::Strong => 1,
            Tone::Faint => 2,
            Tone::Good => 32,
            Tone::Bad => 31,
        };
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// Writes each problem on a line of its own.
    pub fn problems(&mut self, problems: &[Problem]) {
        for problem in problems {
            let Problem { place, key, message } = problem;
            let place = self.tint(Tone::Faint, format_args!("{}:", printable(&place.to_string())));
            let message = printable(message);
            match key.as_str() {
                "" => self.line(format_args!("{place} {message}")),
                key => {
                    let key = self.tint(Tone::Strong, format_args!("{}:", printable(key)));
                    self.line(format_args!("{place} {key} {message}"));
                }
            }
        }
    }
}

/// Colour only where someone looks, and has not asked for none (no-color.org).
fn may_colour(terminal: bool) -> bool {
    terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text` with its control characters replaced.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
