//! The forms in which models answer with lists of items: finds the lists in a schema, makes the schema with operations
//! in their place, and the instructions for the model.

use serde_json::{Map, Value, json};

use super::{Field, Form, List, Lists, pointer};

/// Members of an operation that are not fields of its item.
pub(super) const RESERVED: [&str; 3] = ["op", "list", "before"];
/// The field that says whether an item is settled; its first choice is the state of a new item.
pub(super) const STATE: &str = "state";

impl Lists {
    /// The lists of items in `schema`: arrays whose elements are objects with an `id`. A list inside another list does
    /// not count.
    ///
    /// # Errors
    /// An item has a field whose name an operation needs: JSON pointer and message.
    pub(in super::super) fn of(schema: &Value) -> Result<Self, (String, String)> {
        let mut lists = Vec::new();
        find(schema, &mut Vec::new(), &mut lists);
        for list in &lists {
            if let Some(field) = list.fields.iter().find(|field| RESERVED.contains(&field.name.as_str())) {
                let at = format!("{}/items/properties/{}", schema_pointer(&list.path), field.name);
                let message = format!(
                    "an item (a list element with an \"id\") cannot have a field {:?}: {} are members of its \
                     operations",
                    field.name,
                    RESERVED.join(", ")
                );
                return Err((at, message));
            }
        }
        Ok(Self(lists))
    }

    /// `schema` with operations in place of the lists of items.
    pub(in super::super) fn operations_schema(&self, schema: &Value) -> Value {
        let mut schema = schema.clone();
        for list in &self.0 {
            if let Some(place) = schema.pointer_mut(&schema_pointer(&list.path)) {
                *place = operations(place, list);
            }
        }
        schema
    }

    /// The instructions how to answer with the lists.
    pub(in super::super) fn explanation(&self, form: Form) -> String {
        let names: Vec<String> = self.0.iter().filter_map(|list| Some(format!("\"{}\"", list.path.last()?))).collect();
        let names = names.join(" and ");
        let has_current = self.0.iter().any(|list| list.has_current);
        match form {
            Form::Whole => format!(
                "Give the whole list in {names}: what still holds of the current one under its \"id\", the rest with an empty \
                 \"id\"."
            ),
            Form::Operations => {
                let id = if has_current {
                    "null, or a name of your own such as \"new1\" that \"current\" can refer to"
                } else {
                    "null"
                };
                let resolve = if self.0.iter().any(List::has_states) {
                    "\n- \"resolve\": the item \"id\" is settled; \"state\" and the other fields say how."
                } else {
                    ""
                };
                format!(
                    "Give in {names} not the list itself but the operations that bring the current list up to date, in order, \
                     or [] if nothing has changed. Fields that an operation does not need are null.\n\
                     - \"add\": a new item; \"id\" is {id}. Never add what the current list has.\n\
                     - \"update\": the item \"id\" has changed; only the changed fields are not null.{resolve}\n\
                     - \"retract\": the item \"id\" turned out to be wrong."
                )
            }
        }
    }
}

impl List {
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Returns true if items are open at first and can be settled.
    pub(super) fn has_states(&self) -> bool {
        self.field(STATE).is_some_and(|state| state.choices.len() > 1)
    }
}

fn find(schema: &Value, path: &mut Vec<String>, lists: &mut Vec<List>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, inner) in properties {
        path.push(name.clone());
        match element(inner) {
            Some(_) => lists.push(list(path, &inner["items"], properties.contains_key("current"))),
            None => find(inner, path, lists),
        }
        path.pop();
    }
}

/// The fields of an element, if the schema is that of a list of items.
fn element(schema: &Value) -> Option<&Map<String, Value>> {
    let properties = schema.get("items")?.get("properties")?.as_object()?;
    properties.contains_key("id").then_some(properties)
}

fn list(path: &[String], element: &Value, has_current: bool) -> List {
    let required = element.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let properties = element["properties"].as_object().into_iter().flatten().filter(|(name, _)| *name != "id");
    let fields: Vec<Field> = properties.map(|(name, schema)| field(name, schema, required)).collect();
    let is_text = |field: &&Field| field.choices.is_empty() && element["properties"][&field.name]["type"] == "string";
    let text = fields.iter().find(|field| field.name == "text").or_else(|| fields.iter().find(is_text));
    List {
        path: path.to_vec(),
        pointer: pointer(path),
        text: text.map(|field| field.name.clone()),
        fields,
        has_current,
    }
}

fn field(name: &str, schema: &Value, required: &[Value]) -> Field {
    let choices = schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
    Field {
        name: name.to_owned(),
        required: required.iter().any(|required| required == name),
        nullable: allows_null(schema),
        choices: choices.into_iter().filter(|choice| !choice.is_null()).collect(),
    }
}

fn allows_null(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(kind)) => kind == "null",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "null"),
        _ => schema
            .get("anyOf")
            .and_then(Value::as_array)
            .is_none_or(|any| any.iter().any(|schema| schema["type"] == "null")),
    }
}

/// JSON pointer in the schema to the member at `path`.
fn schema_pointer(path: &[String]) -> String {
    path.iter().map(|name| format!("/properties{}", pointer(std::slice::from_ref(name)))).collect()
}

fn operations(list: &Value, known: &List) -> Value {
    let names =
        if known.has_states() { &["add", "update", "resolve", "retract"][..] } else { &["add", "update", "retract"] };
    let mut properties = Map::new();
    properties.insert("op".to_owned(), json!({ "type": "string", "enum": names }));
    properties.insert("id".to_owned(), json!({ "type": ["string", "null"] }));
    for (name, schema) in element(list).into_iter().flatten().filter(|(name, _)| *name != "id") {
        properties.insert(name.clone(), nullable(schema));
    }
    let required: Vec<&String> = properties.keys().collect();
    let mut operations = json!({
        "type": "array",
        "items": { "type": "object", "properties": properties, "required": required, "additionalProperties": false },
    });
    if let Some(description) = list.get("description") {
        operations["description"] = description.clone();
    }
    operations
}

/// `schema`, extended so that null is valid too.
fn nullable(schema: &Value) -> Value {
    if schema.get("type").is_none() {
        return if allows_null(schema) { schema.clone() } else { json!({ "anyOf": [schema, { "type": "null" }] }) };
    }
    let mut schema = schema.clone();
    let kinds = match schema["type"].take() {
        Value::Array(kinds) => kinds,
        kind => vec![kind],
    };
    let null = json!("null");
    schema["type"] = kinds.iter().filter(|kind| **kind != null).cloned().chain([null.clone()]).collect();
    if let Some(choices) = schema.get_mut("enum").and_then(Value::as_array_mut)
        && !choices.contains(&Value::Null)
    {
        choices.push(Value::Null);
    }
    schema
}
