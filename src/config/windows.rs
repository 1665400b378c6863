//! Checks `max_context_tokens` of `[analyses.*]`.

use std::sync::Arc;

use crate::analysis::{Analysis, Scope};
use crate::base::settings::Problems;

/// Reports analyses of the whole call whose prompts have less room for the transcript than their own text takes: nearly
/// all of each request would be that text.
pub(super) fn check<'a>(analyses: impl Iterator<Item = &'a Arc<Analysis>>, problems: &mut Problems) {
    for analysis in analyses.filter(|analysis| analysis.scope != Scope::Turn) {
        let (fixed, most) = (analysis.fixed_tokens(), analysis.settings.max_context_tokens);
        if fixed > most {
            let message = format!(
                "{most} tokens are less than the {fixed} of the prompt's own text, without the transcript; set it to {fixed} \
                 or more"
            );
            problems.push(format!("analyses.{}.max_context_tokens", analysis.name), message);
        }
    }
}
