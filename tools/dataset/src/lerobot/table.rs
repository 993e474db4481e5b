//! Parquet tables, as LeRobot's readers want them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::DatasetError;

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ColumnType {
    /// One 64-bit integer a row.
    Int,
    /// f32 numbers of a fixed shape a row: lists as deep as it has dimensions; one number if it has none.
    Floats(Vec<usize>),
    /// One text a row.
    Text,
    /// One text a row, as a list of one.
    TextList,
    /// The bytes of an encoded picture a row, as `datasets.Image` stores them.
    Picture,
}

/// Values of a column, all rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    /// Of [`ColumnType::Int`].
    Ints(Vec<i64>),
    /// Of [`ColumnType::Floats`], row after row.
    Floats(Vec<f32>),
    /// Of [`ColumnType::Text`] or [`ColumnType::TextList`].
    Texts(Vec<String>),
    /// Of [`ColumnType::Picture`].
    Pictures(Vec<Vec<u8>>),
}

/// A table under construction, one row group for each call of [`Table::append`].
pub(crate) struct Table {
    path: PathBuf,
    columns: Vec<ColumnType>,
    writer: SerializedFileWriter<File>,
}

impl Table {
    /// Begins the table `path` with these columns and key-value metadata.
    ///
    /// # Errors
    /// [`DatasetError::Io`] and [`DatasetError::Parquet`].
    pub(crate) fn create(
        path: &Path,
        columns: &[(&str, ColumnType)],
        metadata: &[(&str, String)],
    ) -> Result<Table, DatasetError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(DatasetError::io(folder))?;
        }
        let fields: Result<Vec<TypePtr>, ParquetError> =
            columns.iter().map(|(name, kind)| field(name, kind).map(Arc::new)).collect();
        let schema = Type::group_type_builder("schema")
            .with_fields(fields.map_err(DatasetError::parquet(path))?)
            .build()
            .map_err(DatasetError::parquet(path))?;
        let metadata = metadata.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone())).collect();
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(metadata))
            .set_created_by(concat!("fathom-dataset ", env!("CARGO_PKG_VERSION")).to_owned());
        for (name, kind) in columns {
            // Pictures are compressed already, and never repeat.
            if *kind == ColumnType::Picture {
                let path = parquet::schema::types::ColumnPath::new(vec![(*name).to_owned(), "bytes".to_owned()]);
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_statistics_enabled(path.clone(), parquet::file::properties::EnabledStatistics::None)
                    .set_column_compression(path, Compression::UNCOMPRESSED);
            }
        }
        let file = File::create_new(path).map_err(DatasetError::io(path))?;
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties.build()))
            .map_err(DatasetError::parquet(path))?;
        let columns = columns.iter().map(|(_, kind)| kind.clone()).collect();
        Ok(Table { path: path.to_owned(), columns, writer })
    }

    /// Appends rows; `values` are of the columns, in their order.
    ///
    /// # Errors
    /// [`DatasetError::Parquet`].
    pub(crate) fn append(&mut self, values: &[&Values]) -> Result<(), DatasetError> {
        let failed = DatasetError::parquet(&self.path);
        let mut append = || -> Result<(), ParquetError> {
            let mut group = self.writer.next_row_group()?;
            for (kind, values) in self.columns.iter().zip(values) {
                write(&mut group, kind, values)?;
            }
            group.close().map(drop)
        };
        append().map_err(failed)
    }

    /// Bytes that were written.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Ends the table.
    ///
    /// # Errors
    /// [`DatasetError::Parquet`].
    pub(crate) fn close(self) -> Result<(), DatasetError> {
        let path = self.path;
        self.writer.close().map(drop).map_err(DatasetError::parquet(&path))
    }
}

fn field(name: &str, kind: &ColumnType) -> Result<Type, ParquetError> {
    let text = |name: &str| required(name, Physical::BYTE_ARRAY).with_converted_type(ConvertedType::UTF8).build();
    match kind {
        ColumnType::Int => required(name, Physical::INT64).build(),
        ColumnType::Text => text(name),
        ColumnType::TextList => list(name, text("element")?),
        ColumnType::Floats(shape) if shape.is_empty() => required(name, Physical::FLOAT).build(),
        ColumnType::Floats(shape) => {
            let mut inner = required("element", Physical::FLOAT).build()?;
            for _ in 1..shape.len() {
                inner = list("element", inner)?;
            }
            list(name, inner)
        }
        ColumnType::Picture => {
            let optional = |name, kind: ConvertedType| {
                Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
                    .with_repetition(Repetition::OPTIONAL)
                    .with_converted_type(kind)
                    .build()
                    .map(Arc::new)
            };
            let fields = vec![optional("bytes", ConvertedType::NONE)?, optional("path", ConvertedType::UTF8)?];
            group(name, Repetition::REQUIRED).with_fields(fields).build()
        }
    }
}

fn required(name: &str, physical: Physical) -> parquet::schema::types::PrimitiveTypeBuilder<'_> {
    Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED)
}

fn group(name: &str, repetition: Repetition) -> parquet::schema::types::GroupTypeBuilder<'_> {
    Type::group_type_builder(name).with_repetition(repetition)
}

/// A list of `element`s.
fn list(name: &str, element: Type) -> Result<Type, ParquetError> {
    let repeated = group("list", Repetition::REPEATED).with_fields(vec![Arc::new(element)]).build()?;
    group(name, Repetition::REQUIRED)
        .with_converted_type(ConvertedType::LIST)
        .with_fields(vec![Arc::new(repeated)])
        .build()
}

fn write(
    group: &mut SerializedRowGroupWriter<'_, File>,
    kind: &ColumnType,
    values: &Values,
) -> Result<(), ParquetError> {
    match (kind, values) {
        (ColumnType::Int, Values::Ints(values)) => column::<Int64Type>(group, values, None, None),
        (ColumnType::Floats(shape), Values::Floats(values)) if shape.is_empty() => {
            column::<FloatType>(group, values, None, None)
        }
        (ColumnType::Floats(shape), Values::Floats(values)) => {
            let depth = i16::try_from(shape.len()).unwrap_or(i16::MAX);
            let definition = vec![depth; values.len()];
            let repetition: Vec<i16> = (0..values.len()).map(|index| repetition(shape, index)).collect();
            column::<FloatType>(group, values, Some(&definition), Some(&repetition))
        }
        (ColumnType::Text, Values::Texts(values)) => column::<ByteArrayType>(group, &bytes(values), None, None),
        (ColumnType::TextList, Values::Texts(values)) => {
            let (definition, repetition) = (vec![1; values.len()], vec![0; values.len()]);
            column::<ByteArrayType>(group, &bytes(values), Some(&definition), Some(&repetition))
        }
        (ColumnType::Picture, Values::Pictures(pictures)) => {
            let bytes: Vec<ByteArray> = pictures.iter().map(|picture| ByteArray::from(picture.clone())).collect();
            column::<ByteArrayType>(group, &bytes, Some(&vec![1; bytes.len()]), None)?;
            column::<ByteArrayType>(group, &[], Some(&vec![0; bytes.len()]), None)
        }
        _ => Err(ParquetError::General(format!("values for a column of {kind:?} are of another type"))),
    }
}

/// How deep the list is that the number of index `index` continues: 0 begins a row.
fn repetition(shape: &[usize], index: usize) -> i16 {
    let mut level = i16::try_from(shape.len()).unwrap_or(i16::MAX);
    let mut block = 1;
    for size in shape.iter().rev() {
        block *= size.max(&1);
        if !index.is_multiple_of(block) {
            break;
        }
        level -= 1;
    }
    level
}

fn bytes(texts: &[String]) -> Vec<ByteArray> {
    texts.iter().map(|text| ByteArray::from(text.as_str())).collect()
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    definition: Option<&[i16]>,
    repetition: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("the table has fewer columns".to_owned()));
    };
    column.typed::<T>().write_batch(values, definition, repetition)?;
    column.close()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_begin_where_the_shape_says() {
        let levels: Vec<i16> = (0..12).map(|index| repetition(&[2, 3], index)).collect();
        assert_eq!(levels, [0, 2, 2, 1, 2, 2, 0, 2, 2, 1, 2, 2]);
        let levels: Vec<i16> = (0..8).map(|index| repetition(&[2, 2, 2], index)).collect();
        assert_eq!(levels, [0, 3, 2, 3, 1, 3, 2, 3]);
        assert_eq!((0..4).map(|index| repetition(&[2], index)).collect::<Vec<_>>(), [0, 1, 0, 1]);
    }
}
