//! Sums of numbers: the simplest task, with a difficulty set by the number of digits and terms.

use std::collections::HashSet;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::random::below;
use crate::random::generator;
use crate::{Error, Result};

/// The word of this task in a generator's address.
const ARITHMETIC: u64 = u64::from_be_bytes(*b"pr.arith");

/// Generates sums of `terms` numbers of `digits` digits each, such as `37+48=` with the answer
/// `85`.
///
/// Numbers are zero-padded in the prompt (`07+03=`), so that all prompts have the same length; the
/// answer is not padded. The metadata is `{"task": "arithmetic", "terms": [37, 48]}`.
///
/// ```
/// use rlvr::prompt::Arithmetic;
///
/// let sums = Arithmetic {
///     digits: 3,
///     terms: 2,
/// };
/// let problems = sums.problems(1000, 0)?;
/// // A longer list starts with the shorter one.
/// assert_eq!(problems[..10], sums.problems(10, 0)?);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arithmetic {
    /// The number of digits of each number, 1..=9. Default: 2.
    pub digits: usize,
    /// The number of numbers in a sum, 2..=9. Default: 2.
    pub terms: usize,
}

impl Default for Arithmetic {
    fn default() -> Self {
        Self {
            digits: 2,
            terms: 2,
        }
    }
}

impl Arithmetic {
    /// Rejects settings outside their ranges.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the name of the first invalid field.
    pub fn validate(&self) -> Result<()> {
        if !(1..=9).contains(&self.digits) {
            return Err(Error::config("digits", self.digits, "1..=9"));
        }
        if !(2..=9).contains(&self.terms) {
            return Err(Error::config("terms", self.terms, "2..=9"));
        }
        Ok(())
    }

    /// Generates one problem, with every number uniform in `0..10^digits`.
    ///
    /// Settings that are not [valid](Self::validate) are clamped to their ranges.
    pub fn generate(&self, rng: &mut impl Rng) -> Problem {
        let (digits, terms) = (self.digits.clamp(1, 9), self.terms.clamp(2, 9));
        let bound = 10u64.pow(digits as u32);
        let numbers: Vec<u64> = (0..terms).map(|_| below(rng, bound)).collect();
        let written: Vec<String> = numbers
            .iter()
            .map(|number| format!("{number:0digits$}"))
            .collect();
        let sum: u64 = numbers.iter().sum();
        Problem::new(format!("{}=", written.join("+")), sum.to_string())
            .with_metadata("task", "arithmetic")
            .with_metadata("terms", numbers)
    }

    /// Generates `count` problems with distinct prompts, as a pure function of the settings and
    /// `seed`.
    ///
    /// Problem `i` is drawn from its own generator until its prompt is new, so a longer list starts
    /// with the shorter one. Prompts are compared as text: `37+48=` and `48+37=` are two problems.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the settings are invalid, or if there are fewer than `count`
    /// distinct prompts.
    pub fn problems(&self, count: usize, seed: u64) -> Result<Vec<Problem>> {
        self.validate()?;
        // At most 10^81; if it overflows, it is larger than any `count`.
        let there_are = 10u128.checked_pow((self.digits * self.terms) as u32);
        if let Some(there_are) = there_are.filter(|&there_are| there_are < count as u128) {
            let Self { digits, terms } = self;
            return Err(Error::config(
                "count",
                count,
                format!(
                    "at most {there_are}, the number of sums of {terms} numbers of {digits} digits"
                ),
            ));
        }
        let mut seen = HashSet::new();
        let mut problems = Vec::new();
        for i in 0..count as u64 {
            let mut rng = generator(&[seed, ARITHMETIC, i]);
            // This terminates: there is a new prompt, and all prompts are equally likely.
            let problem = loop {
                let problem = self.generate(&mut rng);
                if seen.insert(problem.prompt.clone()) {
                    break problem;
                }
            };
            problems.push(problem);
        }
        Ok(problems)
    }

    /// Returns the column addition of a problem, for supervised warm-up.
    ///
    /// Columns are separated by commas, the lowest digit first. Each consists of the digits of all
    /// terms, the incoming carry, and `=` the total in two digits: the next carry and a digit of
    /// the sum. Two digits always suffice, because nine nines and their carry are 89.
    ///
    /// ```
    /// use rlvr::prompt::{Arithmetic, Problem};
    ///
    /// let worked = Arithmetic::default().worked(&Problem::new("37+48=", "85"))?;
    /// assert_eq!(worked, "7+8+0=15,3+4+1=08");
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the prompt is not a sum of these settings, or if the settings
    /// are invalid.
    pub fn worked(&self, problem: &Problem) -> Result<String> {
        self.validate()?;
        let terms = self.parse(&problem.prompt).ok_or_else(|| {
            let Self { digits, terms } = self;
            let expected =
                format!("{terms} numbers of {digits} digits, `+` between them and `=` at the end");
            Error::config("prompt", format!("{:?}", problem.prompt), expected)
        })?;
        let mut carry = 0;
        let mut columns = Vec::new();
        for place in (0..self.digits).rev() {
            let column: Vec<u32> = terms
                .iter()
                .map(|digits| u32::from(digits[place] - b'0'))
                .collect();
            let total = column.iter().sum::<u32>() + carry;
            let written: String = column.iter().map(|digit| format!("{digit}+")).collect();
            columns.push(format!("{written}{carry}={total:02}"));
            carry = total / 10;
        }
        Ok(columns.join(","))
    }

    /// Returns the characters of prompts, answers and column additions.
    pub fn alphabet(&self) -> &'static str {
        "0123456789+=,"
    }

    /// The digits of each term of a prompt, if it is of these settings.
    fn parse<'a>(&self, prompt: &'a str) -> Option<Vec<&'a [u8]>> {
        let terms: Vec<&[u8]> = prompt
            .strip_suffix('=')?
            .split('+')
            .map(str::as_bytes)
            .collect();
        let fits = |term: &&[u8]| term.len() == self.digits && term.iter().all(u8::is_ascii_digit);
        (terms.len() == self.terms && terms.iter().all(fits)).then_some(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn invalid_settings_are_errors_that_name_the_field() {
        for (digits, terms, field) in [
            (0, 2, "digits"),
            (10, 2, "digits"),
            (1, 1, "terms"),
            (1, 10, "terms"),
        ] {
            let error = Arithmetic { digits, terms }
                .problems(1, 0)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(&format!("invalid `{field}`")), "{error}");
        }
        // `generate` clamps invalid settings and does not panic.
        let problem = Arithmetic {
            digits: 99,
            terms: 0,
        }
        .generate(&mut generator(&[0]));
        assert_eq!(problem.prompt.len(), 20);
        assert!(serde_json::from_str::<Arithmetic>(r#"{"digit": 3}"#).is_err());
        let config: Arithmetic = serde_json::from_str(r#"{"digits": 3}"#).unwrap();
        assert_eq!(
            config,
            Arithmetic {
                digits: 3,
                terms: 2
            }
        );
    }

    #[test]
    fn count_is_limited_by_the_number_of_sums() {
        let sums = Arithmetic {
            digits: 1,
            terms: 2,
        };
        let problems = sums.problems(100, 3).unwrap();
        let prompts: HashSet<&str> = problems
            .iter()
            .map(|problem| problem.prompt.as_str())
            .collect();
        assert_eq!(prompts.len(), 100);
        let error = sums.problems(101, 3).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid `count`: 101; expected at most 100, the number of sums of 2 numbers of 1 digits"
        );
        assert_eq!(
            Arithmetic {
                digits: 9,
                terms: 9
            }
            .problems(2, 0)
            .unwrap()
            .len(),
            2
        );
    }

    #[test]
    fn the_problems_of_seed_0_are_stable_across_releases() {
        let written = |sums: Arithmetic| -> Vec<String> {
            let problems = sums.problems(3, 0).unwrap();
            problems
                .into_iter()
                .map(|problem| problem.prompt + &problem.answer)
                .collect()
        };
        assert_eq!(
            written(Arithmetic::default()),
            ["56+96=152", "77+85=162", "03+93=96"]
        );
        assert_eq!(
            written(Arithmetic {
                digits: 4,
                terms: 3
            }),
            [
                "5643+9605+7319=22567",
                "7724+8551+1222=17497",
                "0370+9344+9331=19045"
            ]
        );
    }

    #[test]
    fn worked_sums_carry_through_every_column() {
        let worked = |digits, terms, prompt: &str| {
            Arithmetic { digits, terms }.worked(&Problem::new(prompt, ""))
        };
        assert_eq!(worked(2, 2, "37+48=").unwrap(), "7+8+0=15,3+4+1=08");
        assert_eq!(
            worked(3, 2, "999+001=").unwrap(),
            "9+1+0=10,9+0+1=10,9+0+1=10"
        );
        let nines = ["99"; 9].join("+") + "=";
        assert_eq!(
            worked(2, 9, &nines).unwrap(),
            "9+9+9+9+9+9+9+9+9+0=81,9+9+9+9+9+9+9+9+9+8=89"
        );
        for wrong in [
            "37+48", "37+4=", "37+48+1=", "37-48=", "37+4x=", "3+748=", "", "=", "37+48==",
            "٣٧+48=",
        ] {
            let error = worked(2, 2, wrong).unwrap_err().to_string();
            assert!(error.starts_with("invalid `prompt`"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn the_last_digits_of_the_columns_are_the_answer(digits in 1usize..10, terms in 2usize..10, seed: u64) {
            let sums = Arithmetic { digits, terms };
            let problem = sums.generate(&mut generator(&[seed]));
            let worked = sums.worked(&problem).unwrap();
            // The last digit of every total, lowest first, below the last carry.
            let totals: Vec<&str> = worked.split(',').map(|column| column.split_once('=').unwrap().1).collect();
            let mut spelled = totals.last().unwrap()[..1].to_owned();
            spelled.extend(totals.iter().rev().map(|total| &total[1..]));
            prop_assert_eq!(spelled.parse::<u64>().unwrap().to_string(), problem.answer.clone());
            prop_assert_eq!(problem.prompt.len(), terms * (digits + 1));
            let all = problem.prompt + &problem.answer + &worked;
            prop_assert!(all.chars().all(|c| sums.alphabet().contains(c)));
        }

        #[test]
        fn a_longer_list_starts_with_the_shorter(short in 0usize..60, more in 0usize..40, seed: u64) {
            let sums = Arithmetic { digits: 1, terms: 2 };
            let (short, long) = (sums.problems(short, seed).unwrap(), sums.problems(short + more, seed).unwrap());
            prop_assert_eq!(&long[..short.len()], &short[..]);
        }
    }
}
