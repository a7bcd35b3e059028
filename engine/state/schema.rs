//! The fields of a type, found by letting its `Deserialize` ask for them.
//!
//! A tracer answers every request with a sample and notes what was asked. Where a sample is refused (a date wants another
//! text) or a type contains itself, the last answer is changed and the trace runs again; further variants of enums get runs
//! of their own. What no answer reaches is noted as `_`. Structs are also offered fields by name, to find out which of them may
//! be missing and which names mean one field.
//!
//! Invariant: one type gives one text, in every run and build; the text changes when a name, order or kind of field does.

use serde::de::value::{Error, StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::collections::BTreeMap;

/// Offered where a string is wanted: instants, dates and times; numbers; addresses.
const TEXTS: [&str; 8] =
    ["", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00", "1970-01-01", "00:00:00", "0", "00000000-0000-0000-0000-000000000000", "a://b"];

/// Runs after which the rest of a type stays unknown.
const ATTEMPTS: usize = 512;

/// What was found out.
pub(super) struct Traced {
    root: String,
    /// Named types in full.
    types: Vec<String>,
    /// Why bytes of it could not be read back.
    pub(super) unreadable: Option<&'static str>,
    /// Values hold something of variable length.
    pub(super) varies: bool,
}

impl Traced {
    /// `Root; Struct{field: kind, ..}; Enum[Variant, ..]`.
    pub(super) fn text(&self) -> String {
        let mut text = self.root.clone();
        for part in &self.types {
            text.push_str("; ");
            text.push_str(part);
        }
        text
    }
}

/// Traces a type.
pub(super) fn trace<V: DeserializeOwned>() -> Traced {
    let mut state = State::default();
    let root = state.run::<V>();
    while let Some((name, variant)) = state.unseen() {
        state.target = Some((name.clone(), variant));
        state.run::<V>();
        state.note_variant(&name, variant, "(_)".to_string());
    }
    let names: Vec<String> = state.structs.keys().cloned().collect();
    let structs: Vec<String> = names.iter().map(|name| format!("{name}{{{}}}", state.fields::<V>(name).join(", "))).collect();
    let enums = state.enums.iter().map(|(name, variants)| {
        let variants: Vec<String> =
            variants.iter().map(|(variant, content)| format!("{variant}{}", content.as_deref().unwrap_or(""))).collect();
        format!("{name}[{}]", variants.join(", "))
    });
    Traced { root, types: structs.into_iter().chain(enums).collect(), unreadable: state.unreadable, varies: state.varies }
}

#[derive(Default)]
struct State {
    /// The answer to each question of a run, and how many there are.
    answers: Vec<(usize, usize)>,
    asked: usize,
    /// Kinds written so far.
    text: String,
    /// Names of the types being traced, to stop at types that contain themselves.
    inside: Vec<String>,
    structs: BTreeMap<String, Vec<(&'static str, String)>>,
    enums: BTreeMap<String, Vec<(&'static str, Option<String>)>>,
    /// The variant that this run is to show.
    target: Option<(String, usize)>,
    /// The fields, by name, that this run is to offer to a struct.
    probe: Option<(String, Vec<&'static str>)>,
    /// What it answered: nothing, or its error.
    probed: Option<Result<(), String>>,
    unreadable: Option<&'static str>,
    varies: bool,
}

impl State {
    /// Traces once with every answer that it takes; the kind of the root.
    fn run<V: DeserializeOwned>(&mut self) -> String {
        self.answers.clear();
        let mut root = String::new();
        for _ in 0..ATTEMPTS {
            self.asked = 0;
            self.text.clear();
            self.inside.clear();
            let target = self.target.clone();
            let done = V::deserialize(Tracer(self)).is_ok();
            self.target = target;
            if root.is_empty() || root.contains('_') {
                root.clone_from(&self.text);
            }
            if done || self.unreadable.is_some() || self.probed.is_some() || !self.next_answer() {
                break;
            }
        }
        self.target = None;
        root
    }

    /// What a struct answers when it is offered these fields; `None`: it takes none by name.
    fn offer<V: DeserializeOwned>(&mut self, name: &str, fields: Vec<&'static str>) -> Option<Result<(), String>> {
        // Behind an enum it is reached by one of the variants only.
        let variants: Vec<(String, usize)> =
            self.enums.iter().flat_map(|(name, variants)| (0..variants.len()).map(move |v| (name.clone(), v))).collect();
        for target in std::iter::once(None).chain(variants.into_iter().map(Some)) {
            (self.probe, self.target) = (Some((name.to_string(), fields.clone())), target);
            self.run::<V>();
            self.probe = None;
            if let Some(answer) = self.probed.take() {
                return Some(answer);
            }
        }
        None
    }

    /// The fields of a struct as text, with their other names and whether they may be missing.
    fn fields<V: DeserializeOwned>(&mut self, name: &str) -> Vec<String> {
        let known = self.structs.get(name).cloned().unwrap_or_default();
        // One field may have several names; offered twice it says which one it goes by.
        let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for (field, _) in &known {
            let twice = self.offer::<V>(name, vec![*field, *field]);
            let main = match &twice {
                Some(Err(error)) => known.iter().map(|(f, _)| *f).find(|f| *error == format!("duplicate field `{f}`")),
                _ => None,
            };
            let main = main.unwrap_or(*field);
            match groups.iter_mut().find(|(other, _)| *other == main) {
                Some((_, names)) => names.push(*field),
                None => groups.push((main, vec![*field])),
            }
        }
        let mains: Vec<&'static str> = groups.iter().map(|(main, _)| *main).collect();
        let mut texts = Vec::with_capacity(groups.len());
        // Kinds were noted in the order in which fields were read, whatever their names.
        for ((main, names), (_, kind)) in groups.into_iter().zip(known) {
            let missing = self.offer::<V>(name, mains.iter().copied().filter(|other| *other != main).collect());
            let required = missing.as_ref().is_some_and(|answer| *answer == Err(format!("missing field `{main}`")));
            let mark = match (kind.ends_with('?'), missing) {
                (false, Some(Ok(()))) => " default",
                (true, _) if required => " required",
                _ => "",
            };
            let aliases: String = names.iter().filter(|n| **n != main).map(|n| format!("/{n}")).collect();
            texts.push(format!("{main}{aliases}: {kind}{mark}"));
        }
        texts
    }

    fn ask(&mut self, answers: usize) -> usize {
        if self.asked == self.answers.len() {
            self.answers.push((0, answers));
        }
        self.asked += 1;
        self.answers[self.asked - 1].0
    }

    fn next_answer(&mut self) -> bool {
        self.answers.truncate(self.asked);
        while let Some((answer, answers)) = self.answers.last_mut() {
            *answer += 1;
            if *answer < *answers {
                return true;
            }
            self.answers.pop();
        }
        false
    }

    fn unseen(&self) -> Option<(String, usize)> {
        self.enums
            .iter()
            .find_map(|(name, variants)| variants.iter().position(|(_, content)| content.is_none()).map(|variant| (name.clone(), variant)))
    }

    fn note_variant(&mut self, name: &str, variant: usize, content: String) {
        if let Some((_, known)) = self.enums.get_mut(name).and_then(|variants| variants.get_mut(variant)) {
            note(known, content);
        }
    }

    /// Enters a named type; two of one name with other parts get names of their own.
    fn enter(&mut self, name: &'static str, same: impl Fn(&State, &str) -> Option<bool>) -> Result<String, Error> {
        let mut full = name.to_string();
        let mut nth = 2;
        while same(self, &full) == Some(false) {
            full = format!("{name}'{nth}");
            nth += 1;
        }
        self.text.push_str(&full);
        if self.inside.iter().filter(|outer| **outer == full).count() >= 2 {
            return Err(Error::custom("contains itself"));
        }
        self.inside.push(full.clone());
        Ok(full)
    }

    /// Puts what `trace` writes between two marks, also if it fails.
    fn wrap<T>(&mut self, before: &str, after: &str, trace: impl FnOnce(&mut State) -> T) -> T {
        self.text.push_str(before);
        let result = trace(self);
        self.text.push_str(after);
        result
    }

    /// Traces the parts of a struct or tuple one after the other; their kinds, as far as they were reached.
    fn parts<'de, V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> (Result<V::Value, Error>, Vec<String>) {
        let mut parts = Parts { state: self, left: len, kinds: Vec::with_capacity(len) };
        let result = visitor.visit_seq(&mut parts);
        let mut kinds = parts.kinds;
        kinds.resize(len, "_".to_string());
        (result, kinds)
    }
}

/// Better knowledge replaces worse; two answers are both kept.
fn note(known: &mut Option<String>, kind: String) {
    match known {
        Some(old) if kind.contains('_') || *old == kind => {}
        Some(old) if !old.contains('_') => {
            if !old.split('|').any(|one| one == kind) {
                *old = format!("{old}|{kind}");
            }
        }
        _ => *known = Some(kind),
    }
}

fn tuple(kinds: &[String]) -> String {
    match kinds {
        [first, .., _] if kinds.iter().all(|kind| kind == first) => format!("({first} x {})", kinds.len()),
        _ => format!("({})", kinds.join(", ")),
    }
}

fn fields_text(fields: &[&'static str], kinds: &[String]) -> String {
    let parts: Vec<String> = fields.iter().zip(kinds).map(|(field, kind)| format!("{field}: {kind}")).collect();
    format!("{{{}}}", parts.join(", "))
}

struct Tracer<'a>(&'a mut State);

macro_rules! numbers {
    ($($method:ident $visit:ident $kind:literal $t:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.0.text.push_str($kind);
            // Some refuse zero.
            let sample = self.0.ask(2) == 1;
            visitor.$visit(<$t>::from(sample))
        }
    )*};
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Error;

    numbers!(
        deserialize_i8 visit_i8 "i8" i8, deserialize_u8 visit_u8 "u8" u8, deserialize_i16 visit_i16 "i16" i16,
        deserialize_u16 visit_u16 "u16" u16, deserialize_i32 visit_i32 "i32" i32, deserialize_u32 visit_u32 "u32" u32,
        deserialize_i64 visit_i64 "i64" i64, deserialize_u64 visit_u64 "u64" u64, deserialize_i128 visit_i128 "i128" i128,
        deserialize_u128 visit_u128 "u128" u128
    );

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str("f32");
        visitor.visit_f32(1.0)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str("f64");
        visitor.visit_f64(1.0)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.0.text.push('_');
        self.0.unreadable = Some("it asks its bytes what they are (`untagged`, `tag`, `flatten` or free-form JSON)");
        Err(Error::custom("not readable"))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str("bool");
        visitor.visit_bool(false)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str("char");
        visitor.visit_char('a')
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str("str");
        self.0.varies = true;
        let sample = self.0.ask(TEXTS.len());
        visitor.visit_str(TEXTS[sample])
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str("bytes");
        self.0.varies = true;
        // Identifiers of 16 bytes are the common fixed ones.
        let sample = self.0.ask(2);
        visitor.visit_bytes(&[0; 16][..16 * sample])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let some = self.0.ask(2) == 0;
        self.0.wrap("", "?", |state| match some {
            true => visitor.visit_some(Tracer(state)),
            false => state.wrap("_", "", |_| visitor.visit_none()),
        })
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str("()");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str(name);
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if self.0.inside.iter().filter(|outer| *outer == name).count() >= 2 {
            self.0.text.push_str(name);
            return Err(Error::custom("contains itself"));
        }
        self.0.inside.push(name.to_string());
        let result = self.0.wrap(&format!("{name}("), ")", |state| visitor.visit_newtype_struct(Tracer(state)));
        self.0.inside.pop();
        result
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.varies = true;
        let len = 1 - self.0.ask(2);
        let (result, kinds) = self.0.parts(len, visitor);
        self.0.text.push_str(&format!("[{}]", kinds.first().map_or("_", String::as_str)));
        result
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let (result, kinds) = self.0.parts(len, visitor);
        self.0.text.push_str(&tuple(&kinds));
        result
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.0.text.push_str(name);
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.varies = true;
        let len = 1 - self.0.ask(2);
        let mut parts = Parts { state: self.0, left: 2 * len, kinds: Vec::new() };
        let result = visitor.visit_map(&mut parts);
        let mut kinds = parts.kinds;
        kinds.resize(2, "_".to_string());
        self.0.text.push_str(&format!("{{{}: {}}}", kinds[0], kinds[1]));
        result
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let name = self.0.enter(name, |state, full| match state.structs.get(full) {
            Some(known) => Some(known.iter().map(|(field, _)| *field).eq(fields.iter().copied())),
            None => state.enums.get(full).map(|_| false),
        })?;
        if let Some((target, offered)) = &self.0.probe
            && *target == name
            && self.0.probed.is_none()
        {
            let offered = offered.clone();
            let start = self.0.text.len();
            let result = visitor.visit_map(Offered { state: self.0, fields: offered.into_iter() });
            self.0.text.truncate(start);
            self.0.inside.pop();
            match &result {
                Ok(_) => self.0.probed = Some(Ok(())),
                Err(e) => {
                    let error = e.to_string();
                    if error.starts_with("missing field") || error.starts_with("duplicate field") {
                        self.0.probed.get_or_insert(Err(error));
                    }
                }
            }
            return result;
        }
        // Noted first, so that a type inside of the same name sees it.
        self.0.structs.entry(name.clone()).or_insert_with(|| fields.iter().map(|field| (*field, "_".to_string())).collect());
        let (result, kinds) = self.0.parts(fields.len(), visitor);
        self.0.inside.pop();
        if let Some(known) = self.0.structs.get_mut(&name) {
            for ((_, known), kind) in known.iter_mut().zip(kinds) {
                let mut both = Some(std::mem::take(known));
                note(&mut both, kind);
                *known = both.unwrap_or_default();
            }
        }
        result
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let name = self.0.enter(name, |state, full| match state.enums.get(full) {
            Some(known) => Some(known.iter().map(|(variant, _)| *variant).eq(variants.iter().copied())),
            None => state.structs.get(full).map(|_| false),
        })?;
        self.0.enums.entry(name.clone()).or_insert_with(|| variants.iter().map(|variant| (*variant, None)).collect());
        let wanted = self.0.target.take_if(|(target, _)| *target == name).map_or(0, |(_, variant)| variant);
        let variant = (wanted + self.0.ask(variants.len())) % variants.len().max(1);
        visitor.visit_enum(Variant { state: self.0, name, variant })
    }
}

/// Parts of a struct, tuple, sequence or map, traced in order.
struct Parts<'a> {
    state: &'a mut State,
    left: usize,
    kinds: Vec<String>,
}

impl Parts<'_> {
    fn part<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let start = self.state.text.len();
        let result = seed.deserialize(Tracer(self.state));
        self.kinds.push(self.state.text.split_off(start));
        result
    }
}

impl<'de> SeqAccess<'de> for &mut Parts<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.part(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for &mut Parts<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        self.left = self.left.saturating_sub(1);
        self.part(seed)
    }
}

/// Fields of a struct, offered by name.
struct Offered<'a> {
    state: &'a mut State,
    fields: std::vec::IntoIter<&'static str>,
}

impl<'de> MapAccess<'de> for Offered<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.fields.next() else { return Ok(None) };
        let field: StrDeserializer<'_, Error> = field.into_deserializer();
        seed.deserialize(field).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Tracer(self.state))
    }
}

/// One variant of an enum.
struct Variant<'a> {
    state: &'a mut State,
    name: String,
    variant: usize,
}

impl Variant<'_> {
    fn leave(self, content: String) {
        self.state.inside.pop();
        self.state.note_variant(&self.name, self.variant, content);
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let index: U32Deserializer<Error> = (self.variant as u32).into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.leave(String::new());
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let mut part = Parts { state: self.state, left: 1, kinds: Vec::new() };
        let result = part.part(seed);
        let content = tuple(&part.kinds);
        Variant { state: part.state, name: self.name, variant: self.variant }.leave(content);
        result
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let (result, kinds) = self.state.parts(len, visitor);
        self.leave(tuple(&kinds));
        result
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let (result, kinds) = self.state.parts(fields.len(), visitor);
        self.leave(fields_text(fields, &kinds));
        result
    }
}
