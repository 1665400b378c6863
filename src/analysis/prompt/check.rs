//! Checks that a template uses only the variables of its scope.
//!
//! Knows no call. Two checks: of the names in the template, which finds the exact place, and by a trial run in which
//! undefined values may not be shown, which also finds members that are reached in another way (`turn["text"]`).

use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use super::super::folder::Fault;
use super::super::{Scope, position};
use super::{fault, variables};

/// Checks the names: all must be variables of the scope, and only `meta` has members.
///
/// # Errors
/// The first name in the file that is not a variable.
pub(super) fn variables(
    file: &str,
    source: &str,
    templates: &Environment<'_>,
    index: usize,
    scope: Scope,
) -> Result<(), Fault> {
    let template = templates.get_template(&index.to_string()).map_err(|error| fault(file, source, &error))?;
    let known = variables::names(scope);
    let is_global = |name: &str| templates.globals().any(|(global, _)| global == name);
    let mut wrong: Vec<(Option<usize>, String)> = Vec::new();
    for path in template.undeclared_variables(true) {
        let (name, member) = path.split_once('.').map_or((path.as_str(), None), |(name, member)| (name, Some(member)));
        let message = match member {
            _ if is_global(name) => continue,
            _ if !known.contains(&name) => format!("unknown variable {name:?}"),
            Some(member) if name != variables::WITH_MEMBERS => {
                format!("{name} has no member {member:?}: it is a single value")
            }
            _ => continue,
        };
        let at = position::variable(source, &path).or_else(|| position::variable(source, name));
        wrong.push((at, format!("{message}; there are: {}", known.join(", "))));
    }
    wrong.sort();
    let Some((at, message)) = wrong.into_iter().next() else { return Ok(()) };
    Err(match at {
        Some(at) => Fault::at(file, source, at, message),
        None => Fault::whole(file, message),
    })
}

/// Renders with a `meta` that has every member, and fails if an undefined value is shown.
///
/// # Errors
/// The place where a value is shown that no call will ever have.
pub(super) fn undefined(file: &str, templates: &Environment<'static>, scope: Scope) -> Result<(), Fault> {
    let mut strict = templates.clone();
    strict.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    for (_, template) in strict.templates() {
        // Other errors are caused by the made-up `meta`.
        if let Err(error) = template.render(variables::sample_with_any_meta(scope))
            && error.kind() == ErrorKind::UndefinedError
        {
            let mut found = fault(file, template.source(), &error);
            found.message =
                format!("uses a variable that no call has; there are: {}", variables::names(scope).join(", "));
            return Err(found);
        }
    }
    Ok(())
}
