//! Digits in groups of three, for all modules that read numbers.

/// Digits without the separators between them.
pub(crate) struct Digits {
    pub digits: String,
    /// The position after them.
    pub end: usize,
    /// Whether there were separators.
    pub grouped: bool,
}

/// Reads the digits from `start` on. Groups of exactly three digits follow a first group of one to
/// three that does not begin with 0. Each is preceded by a separator, whose length `mark` returns
/// for its position.
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
            // Looks at no more than a fourth digit, so that each digit is read once.
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
