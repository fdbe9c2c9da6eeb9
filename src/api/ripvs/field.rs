//! How Rust values become attributes: one trait, and a macro that declares a record with its encoding.
//!
//! A record is a struct whose fields have numbers. Each field is an attribute of that number; an `Option` that is
//! `None` has none, a `Vec` has one for each element, and a record within a record is a nested attribute. Numbers are in
//! host byte order: both ends are on one machine.

use std::borrow::Cow;

use crate::nl::{u16_at, u32_at, u64_at, DecodeError, Writer};

/// A value that can be a field of a record.
pub trait Field: Sized {
    /// Writes the attribute or attributes.
    fn put(&self, number: u16, w: &mut Writer);

    /// Takes one attribute of the field's number. It may come again.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are none of this type.
    fn take(slot: &mut Option<Self>, bytes: &[u8]) -> Result<(), DecodeError>;

    /// Ends the reading of the field called `name`.
    ///
    /// # Errors
    /// [`DecodeError::Missing`] where nothing came and something has to.
    fn finish(slot: Option<Self>, name: &'static str) -> Result<Self, DecodeError> {
        slot.ok_or(DecodeError::Missing(name))
    }
}

/// Implements [`Field`] for a type with a function to bytes and one from bytes.
macro_rules! field {
    ($type:ty, $to:expr, $from:expr) => {
        impl $crate::ripvs::field::Field for $type {
            fn put(&self, number: u16, w: &mut $crate::nl::Writer) {
                #[allow(clippy::redundant_closure_call)]
                w.attr(number, ($to)(self).as_ref());
            }

            fn take(slot: &mut Option<Self>, bytes: &[u8]) -> Result<(), $crate::nl::DecodeError> {
                #[allow(clippy::redundant_closure_call)]
                let value: Option<$type> = ($from)(bytes);
                *slot = Some(value.ok_or($crate::nl::DecodeError::Invalid(stringify!($type)))?);
                Ok(())
            }
        }
    };
}
pub(super) use field;

field!(u8, |v: &u8| [*v], |b: &[u8]| b.first().copied());
field!(u16, |v: &u16| v.to_ne_bytes(), |b| u16_at(b, 0));
field!(u32, |v: &u32| v.to_ne_bytes(), |b| u32_at(b, 0));
field!(u64, |v: &u64| v.to_ne_bytes(), |b| u64_at(b, 0));
field!(bool, |v: &bool| [u8::from(*v)], |b: &[u8]| match b {
    [0] => Some(false),
    [1] => Some(true),
    _ => None,
});
field!(String, String::as_bytes, |b: &[u8]| {
    std::str::from_utf8(b).ok().map(str::to_owned)
});
/// A word of a few, which the server has as it is.
impl Field for Cow<'static, str> {
    fn put(&self, number: u16, w: &mut Writer) {
        w.attr(number, self.as_bytes());
    }

    fn take(slot: &mut Option<Self>, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut word: Option<String> = None;
        Field::take(&mut word, bytes)?;
        *slot = word.map(Cow::Owned);
        Ok(())
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, number: u16, w: &mut Writer) {
        if let Some(value) = self {
            value.put(number, w);
        }
    }

    fn take(slot: &mut Option<Self>, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut value = None;
        T::take(&mut value, bytes)?;
        *slot = Some(value);
        Ok(())
    }

    fn finish(slot: Option<Self>, _: &'static str) -> Result<Self, DecodeError> {
        Ok(slot.flatten())
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, number: u16, w: &mut Writer) {
        for value in self {
            value.put(number, w);
        }
    }

    fn take(slot: &mut Option<Self>, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut value = None;
        T::take(&mut value, bytes)?;
        slot.get_or_insert_with(Vec::new).extend(value);
        Ok(())
    }

    fn finish(slot: Option<Self>, _: &'static str) -> Result<Self, DecodeError> {
        Ok(slot.unwrap_or_default())
    }
}

/// Declares a record.
macro_rules! record {
    ($(#[$doc:meta])* pub struct $name:ident {
        $($(#[$fdoc:meta])* $number:literal $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
        }

        impl $name {
            pub(super) fn put_fields(&self, w: &mut $crate::nl::Writer) {
                $($crate::ripvs::field::Field::put(&self.$field, $number, w);)*
            }

            pub(super) fn from_fields(bytes: &[u8]) -> Result<$name, $crate::nl::DecodeError> {
                $(let mut $field: Option<$type> = None;)*
                let mut attrs = $crate::nl::Attrs::new(bytes);
                for (number, value) in attrs.by_ref() {
                    match number {
                        $($number => $crate::ripvs::field::Field::take(&mut $field, value)?,)*
                        _ => {}
                    }
                }
                if !attrs.is_whole() {
                    return Err($crate::nl::DecodeError::Truncated);
                }
                Ok($name {
                    $($field: $crate::ripvs::field::Field::finish($field, stringify!($field))?,)*
                })
            }
        }

        impl $crate::ripvs::field::Field for $name {
            fn put(&self, number: u16, w: &mut $crate::nl::Writer) {
                w.nest(number, |w| self.put_fields(w));
            }

            fn take(slot: &mut Option<Self>, bytes: &[u8]) -> Result<(), $crate::nl::DecodeError> {
                *slot = Some($name::from_fields(bytes)?);
                Ok(())
            }
        }
    };
}
pub(super) use record;

/// Declares an enum of states that is one byte, with the words operators see.
macro_rules! states {
    ($(#[$doc:meta])* pub enum $name:ident {
        $($(#[$vdoc:meta])* $number:literal $variant:ident = $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)*
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $($name::$variant => $word,)* })
            }
        }

        $crate::ripvs::field::field!(
            $name,
            |v: &$name| [match v { $($name::$variant => $number,)* }],
            |b: &[u8]| match b { $([$number] => Some($name::$variant),)* _ => None }
        );
    };
}
pub(super) use states;
