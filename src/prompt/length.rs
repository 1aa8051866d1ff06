//! Filtering of problems with long prompts.

use super::{Problem, Tokenizer};
use crate::{Error, Result};

/// Removes the problems with prompts of more than `max_tokens` tokens and returns their number.
///
/// A policy with `n` positions can take prompts of `n + 1 - max_new_tokens` tokens, because the
/// last token of a completion is not an input. Building a trainer with a longer prompt is an error.
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
/// Returns [`Error::Config`] with the index of the first problem whose prompt cannot be encoded. No
/// problem is removed in this case.
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

/// Encodes the prompt of the problem at `index` of a list; an error names the index.
pub(crate) fn encode_problem(
    index: usize,
    problem: &Problem,
    tokenizer: &dyn Tokenizer,
) -> Result<Vec<u32>> {
    tokenizer.encode_prompt(&problem.prompt).map_err(|reason| {
        let field = format!("problems[{index}].prompt");
        Error::config(field, reason, "a text that the tokenizer can encode")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::CharTokenizer;

    #[test]
    fn a_prompt_that_cannot_be_encoded_is_an_error_and_no_problem_is_removed() {
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
