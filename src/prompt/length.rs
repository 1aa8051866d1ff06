//! Problems whose prompts are too long.

use super::{Problem, Tokenizer};
use crate::{Error, Result};

/// Drops the problems whose prompts have more than `max_tokens` tokens, and says how many they were.
///
/// A policy of `n` positions has room for prompts of `n + 1 - max_new_tokens` tokens, since the last token of a completion is
/// never read again. A trainer with a longer prompt is not built.
///
/// ```
/// use rlvr::prompt::{CharTokenizer, Problem, drop_long_prompts};
///
/// let tokenizer = CharTokenizer::new("0123456789+=", &[])?;
/// let mut problems = vec![Problem::new("1+1=", "2"), Problem::new("123+456=", "579")];
/// assert_eq!(drop_long_prompts(&mut problems, &tokenizer, 6)?, 1);
/// assert_eq!(problems, [Problem::new("1+1=", "2")]);
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] that names the index of a problem whose prompt cannot be encoded; no problem is dropped then.
#[doc(alias = "max_prompt_length")]
pub fn drop_long_prompts(
    problems: &mut Vec<Problem>,
    tokenizer: &dyn Tokenizer,
    max_tokens: usize,
) -> Result<usize> {
    let fits = |(index, problem): (usize, &Problem)| {
        Ok(encode_problem(index, problem, tokenizer)?.len() <= max_tokens)
    };
    let fits = problems.iter().enumerate().map(fits);
    let mut fits = fits.collect::<Result<Vec<bool>>>()?.into_iter();
    let before = problems.len();
    problems.retain(|_| fits.next().unwrap_or(true));
    Ok(before - problems.len())
}

/// The prompt's tokens of the problem at `index` of a list; an error names the index.
pub(crate) fn encode_problem(
    index: usize,
    problem: &Problem,
    tokenizer: &dyn Tokenizer,
) -> Result<Vec<u32>> {
    tokenizer.encode_prompt(&problem.prompt).map_err(|reason| {
        let field = format!("problems[{index}].prompt");
        Error::config(field, reason, "text that the tokenizer encodes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::CharTokenizer;

    #[test]
    fn a_prompt_that_cannot_be_encoded_is_named_and_nothing_is_dropped() {
        let tokenizer = CharTokenizer::new("ab", &[]).unwrap();
        let mut problems = ["aaaa", "ab", "x"]
            .map(|prompt| Problem::new(prompt, ""))
            .to_vec();
        let error = drop_long_prompts(&mut problems, &tokenizer, 2).unwrap_err();
        assert!(error.to_string().contains("problems[2].prompt"), "{error}");
        assert_eq!(problems.len(), 3);
        problems.pop();
        assert_eq!(drop_long_prompts(&mut problems, &tokenizer, 2).unwrap(), 1);
        assert_eq!(problems[0].prompt, "ab");
    }
}
