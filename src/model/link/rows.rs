//! The rows of a long list, read ahead of whoever links them, on another thread.
//!
//! Reading takes about as long as linking. A list that fits into one piece is read where it is linked.

use std::{sync::mpsc::sync_channel, thread};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::raw;

/// Rows that are read at once.
const PIECE: usize = 1024;
/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// Gives each of `rows`, read as a `T`, to `link`, with its index and in order; `None` for one that is no `T`.
pub(super) fn each<'a, T>(rows: &[&'a RawValue], mut link: impl FnMut(usize, Option<T>))
where
    T: Deserialize<'a> + Send,
{
    if rows.len() <= PIECE {
        rows.iter().enumerate().for_each(|(index, row)| link(index, raw::row(row)));
        return;
    }
    thread::scope(|scope| {
        let (read, pieces) = sync_channel::<Vec<Option<T>>>(AHEAD);
        scope.spawn(move || {
            for piece in rows.chunks(PIECE) {
                if read.send(piece.iter().map(|row| raw::row(row)).collect()).is_err() {
                    return;
                }
            }
        });
        pieces.into_iter().flatten().enumerate().for_each(|(index, row)| link(index, row));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Row {
        number: usize,
    }

    #[test]
    fn rows_come_in_order_whatever_their_number() {
        for count in [0, 1, PIECE, PIECE + 1, (AHEAD + 3) * PIECE + 7] {
            let text: Vec<String> = (0..count)
                .map(|number| if number % 10 == 3 { "[]".to_owned() } else { format!(r#"{{"number": {number}}}"#) })
                .collect();
            let rows: Vec<&RawValue> = text.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
            let mut seen = 0;
            each(&rows, |index, row: Option<Row>| {
                assert_eq!(index, seen);
                assert_eq!(row, (index % 10 != 3).then_some(Row { number: index }));
                seen += 1;
            });
            assert_eq!(seen, count);
        }
    }
}
