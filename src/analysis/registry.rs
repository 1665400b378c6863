//! All analyses that a daemon knows: the built-in ones, and the user's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Value;

use super::folder::load_dir;
use super::settings::{PartialSettings, Settings};
use super::{Analysis, builtin};
use crate::base::names;
use crate::base::settings::{Problems, Section, found};
use crate::types::id;

/// Analyses that run if neither the call nor the configuration names any.
const DEFAULTS: [&str; 3] = ["summary", "sentiment", "stats"];

/// Analyses by name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    by_name: BTreeMap<String, Arc<Analysis>>,
    names: Vec<String>,
    defaults: Vec<String>,
    given: Vec<String>,
    /// Built-in analyses that need a section in the configuration, and what it must contain.
    unready: BTreeMap<String, String>,
}

impl Registry {
    /// Reads `[analyses.*]` over the built-in ones. A relative `dir` is resolved against `base`. Problems are added to
    /// `problems`, and the analysis is left out.
    pub fn read(config: Option<Value>, base: &Path, problems: &mut Problems) -> Self {
        let mut sections: Vec<(String, Value)> = match config {
            None => Vec::new(),
            Some(Value::Table(table)) => table.into_iter().collect(),
            Some(other) => {
                problems.push("analyses", format!("expected tables [analyses.NAME], found {}", found(&other)));
                Vec::new()
            }
        };
        let mut registry = Self::default();
        for (name, _) in builtin::FOLDERS {
            let section = sections.iter().position(|(section, _)| section == name).map(|at| sections.remove(at).1);
            let given = section.is_some();
            registry.add(name, section, base, problems);
            if given || DEFAULTS.contains(name) {
                registry.defaults.push((*name).to_owned());
            }
            if given {
                registry.given.push((*name).to_owned());
            }
        }
        for (name, section) in sections {
            if let Err(error) = id::check(&name) {
                problems.push(format!("analyses.{name}"), error.to_string());
                continue;
            }
            registry.add(&name, Some(section), base, problems);
            registry.defaults.push(name.clone());
            registry.given.push(name);
        }
        registry.defaults.retain(|name| registry.by_name.contains_key(name));
        // Includes analyses with errors: a reference to one of them is not another error.
        let mut names: Vec<String> = registry.by_name.keys().chain(&registry.given).cloned().collect();
        names.sort_unstable();
        names.dedup();
        registry.names = names;
        registry
    }

    /// The built-in analyses without a configuration.
    pub fn builtin() -> Self {
        Self::read(None, Path::new("."), &mut Problems::default())
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Analysis>> {
        self.by_name.get(name)
    }

    /// All names, sorted. While the configuration is read, they include analyses that have errors.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The message about a name that no analysis has.
    pub fn unknown(&self, name: &str) -> String {
        let message = names::unknown("analysis", name, &self.names);
        match self.unready.get(name) {
            Some(missing) => format!("{message}; {name} needs a section: [analyses.{name}] {missing}"),
            None => message,
        }
    }

    /// Analyses that a call runs by default: `summary`, `sentiment`, `stats`, and every analysis that has a section in
    /// the configuration.
    pub fn defaults(&self) -> Vec<String> {
        self.defaults.clone()
    }

    /// Makes every analysis ask `route`, whatever its settings say.
    pub fn ask(&mut self, route: &str) {
        for analysis in self.by_name.values_mut() {
            Arc::make_mut(analysis).settings.route = Some(route.to_owned());
        }
    }

    /// Returns true if the configuration has a section for the analysis `name`.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }

    fn add(&mut self, name: &str, section: Option<Value>, base: &Path, problems: &mut Problems) {
        let path = format!("analyses.{name}");
        let is_given = section.is_some();
        let mut section = Section::new(path.clone(), section, problems);
        let (dir, copied) = (section.string("dir"), section.string("analysis"));
        let config = PartialSettings::read(&mut section);
        let own = builtin::folder(name);
        let embedded = match &copied {
            None => own,
            Some(_) if own.is_some() || dir.is_some() => {
                let message = "only for a section that has no dir and whose name is not a built-in analysis";
                return section.problem("analysis", message);
            }
            Some(copied) => match builtin::folder(copied) {
                None => {
                    return section.problem("analysis", names::unknown("built-in analysis", copied, &builtin_names()));
                }
                found => found,
            },
        };
        section.finish();
        // If a user's folder replaces a built-in one, the embedded provider answers it with the same method.
        let built_in = embedded.as_ref().and_then(|folder| Settings::of_folder(name, folder).ok());
        let local = built_in.and_then(|given| given.local);
        let folder = match (dir, embedded) {
            (Some(dir), _) => match load_dir(&base.join(dir)) {
                Ok(folder) => folder,
                Err(fault) => return problems.push(format!("{path}.dir"), fault.to_string()),
            },
            (None, Some(embedded)) => embedded,
            (None, None) => {
                let message = format!(
                    "expected the folder with its prompt and schema; only {} come without one, under these names or by \
                     analysis = \"NAME\"",
                    builtin_names().join(", ")
                );
                return problems.push(format!("{path}.dir"), message);
            }
        };
        let faults = match Analysis::of_folder(name, &folder, &config, local) {
            Ok(analysis) => {
                self.by_name.insert(name.to_owned(), Arc::new(analysis));
                return;
            }
            Err(faults) => faults,
        };
        if !is_given
            && let Some(missing) = faults.iter().find_map(|fault| Some(fault.message.split_once(": missing")?.0))
        {
            self.unready.insert(name.to_owned(), format!("with {missing}"));
            return;
        }
        for fault in faults {
            match fault.message.split_once(": ").filter(|_| fault.file.is_empty()) {
                Some((key, message)) => problems.push(format!("{path}.{key}"), message),
                None => problems.push(format!("{path}.dir"), fault.to_string()),
            }
        }
    }
}

fn builtin_names() -> Vec<&'static str> {
    builtin::FOLDERS.iter().map(|(name, _)| *name).collect()
}
