//! Digits in groups of three: what all readers of numbers have in common.

/// Digits without the marks between them.
pub(crate) struct Digits {
    pub digits: String,
    /// The place behind them.
    pub end: usize,
    /// Whether there were marks.
    pub grouped: bool,
}

/// The digits from `start` on. Groups of exactly three follow a first one of one to three that does not begin with 0, each after
/// a mark whose length `mark` gives for its place.
pub(crate) fn read(
    at: impl Fn(usize) -> Option<char>,
    start: usize,
    mut mark: impl FnMut(usize) -> Option<usize>,
) -> Digits {
    let run = |from: usize| -> String {
        let digits = (from..).map_while(|place| at(place).filter(char::is_ascii_digit));
        digits.collect()
    };
    let mut digits = run(start);
    let mut end = start + digits.len();
    let mut grouped = false;
    if (1..=3).contains(&digits.len()) && !digits.starts_with('0') {
        while let Some(length) = mark(end) {
            // A fourth digit is looked at, and no more: a text of digits is read once.
            let three = (0..4).map_while(|i| at(end + length + i).filter(char::is_ascii_digit));
            let group: String = three.collect();
            if group.len() != 3 {
                break;
            }
            digits += &group;
            end += length + 3;
            grouped = true;
        }
    }
    Digits {
        digits,
        end,
        grouped,
    }
}
