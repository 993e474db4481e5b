//! The declaration of a record generates its type, codec, largest size and schema text.
//!
//! A record is its fields in the order of their declaration. `as` gives a field another name in the schema; a byte in
//! brackets precedes a field and exists only on the line: the flags of the record's optional parts, its number of
//! joints, or a frame's type.

/// Declares a record; the lifetime of one that borrows is `'a`.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident $(<$life:lifetime>)? {
        $( $([$before:ident $byte:literal])? $(#[$doc:meta])* pub $field:ident $(as $wire:literal)?: $type:ty, )*
    }) => {
        $(#[$meta])*
        pub struct $name $(<$life>)? { $( $(#[$doc])* pub $field: $type, )* }

        impl<'a> $crate::wire::Wire<'a> for $name $(<$life>)? {
            const MAX: usize = $( $( { let _ = $byte; 1 } + )? <$type as $crate::wire::Wire>::MAX + )* 0;
            const PARTS: &'static [$crate::schema::Part] = &[ $(
                $( $crate::schema::Part::of::<u8>($byte), )?
                $crate::schema::Part::of::<$type>(match [stringify!($field) $(, $wire)?] { [.., name] => name }),
            )* ];

            fn write(&self, w: &mut $crate::wire::Writer<'_>) -> Result<(), $crate::wire::Full> {
                $( $( w.$before(self)?; )? $crate::wire::Wire::write(&self.$field, w)?; )*
                Ok(())
            }

            fn read(r: &mut $crate::wire::Reader<'a>) -> Option<Self> {
                Some(Self { $( $field: { $( r.$before()?; )? $crate::wire::Wire::read(r)? }, )* })
            }

            fn note(&self, context: &mut $crate::wire::Context) {
                $( $crate::wire::Wire::note(&self.$field, context); )*
            }
        }
    };
}

/// Declares an enum of one byte.
macro_rules! codes {
    ($(#[$meta:meta])* pub enum $name:ident { $( $(#[$doc:meta])* $code:ident = $value:literal, )* }) => {
        $(#[$meta])*
        #[repr(u8)]
        pub enum $name { $( $(#[$doc])* $code = $value, )* }

        impl $name {
            pub(crate) fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $( $value => Some(Self::$code), )*
                    _ => None,
                }
            }
        }
    };
}

/// Makes enums that [`codes`] declared parts of a body.
macro_rules! code_bytes {
    ($($name:ty),*) => { $(
        impl<'a> $crate::wire::Wire<'a> for $name {
            const MAX: usize = 1;
            const TEXT: &'static str = <u8 as $crate::wire::Wire>::TEXT;

            fn write(&self, w: &mut $crate::wire::Writer<'_>) -> Result<(), $crate::wire::Full> {
                $crate::wire::Wire::write(&(*self as u8), w)
            }

            fn read(r: &mut $crate::wire::Reader<'a>) -> Option<Self> {
                Self::from_u8($crate::wire::Wire::read(r)?)
            }
        }
    )* };
}

/// Declares the messages of both directions: type, name in the schema, constant of the type, variant.
macro_rules! messages {
    ($(#[$meta:meta])* pub enum $message:ident<'a> {
        $(
            $(#[$doc:meta])*
            $value:literal $name:ident $kind:ident
            $variant:ident $(($body:ident: $type:ty))? $({ $(#[$field_doc:meta])* $field:ident: $field_type:ty })?,
        )*
    }) => {
        /// Type byte of each message. The host's have the top bit clear, the controller's have it set.
        pub mod kind {
            $(
                #[doc = concat!("[`Message::", stringify!($variant), "`](super::Message::", stringify!($variant), ")")]
                pub const $kind: u8 = $value;
            )*
        }

        $(#[$meta])*
        pub enum $message<'a> {
            $( $(#[$doc])* $variant $(($type))? $({ $(#[$field_doc])* $field: $field_type })?, )*
        }

        impl<'a> $message<'a> {
            /// The messages in the schema.
            const LINES: &'static [$crate::schema::Line] = &[ $( $crate::schema::Line {
                kind: Some($value),
                name: stringify!($name),
                parts: &[
                    $( $crate::schema::Part::of::<$field_type>(stringify!($field)), )?
                    $( $crate::schema::Part::of::<$type>(stringify!($body)), )?
                ],
                max: $( <$type as $crate::wire::Wire>::MAX + )? $( <$field_type as $crate::wire::Wire>::MAX + )? 0,
            }, )* ];

            /// The type byte, see [`kind`].
            pub fn kind(&self) -> u8 {
                match self {
                    $( Self::$variant { .. } => $value, )*
                }
            }

            pub(crate) fn write(&self, w: &mut $crate::wire::Writer<'_>) -> Result<(), $crate::wire::Full> {
                match self {
                    $( Self::$variant $(($body))? $({ $field })? => {
                        $( $crate::wire::Wire::write($body, w)?; )?
                        $( $crate::wire::Wire::write($field, w)?; )?
                        Ok(())
                    } )*
                }
            }

            /// The message of a type and body; `None` when the body is not one of that type.
            pub(crate) fn read(kind: u8, body: &'a [u8]) -> Option<Self> {
                let mut r = $crate::wire::Reader::new(body);
                let message = match kind {
                    $( $value => Self::$variant
                        $(({ let $body: $type = $crate::wire::Wire::read(&mut r)?; $body }))?
                        $({ $field: $crate::wire::Wire::read(&mut r)? })?, )*
                    _ => return None,
                };
                r.is_over().then_some(message)
            }

            /// Whether some message has this type byte.
            pub(crate) fn is_known(kind: u8) -> bool {
                matches!(kind, $( $value )|*)
            }
        }
    };
}

pub(crate) use {code_bytes, codes, messages, record};
