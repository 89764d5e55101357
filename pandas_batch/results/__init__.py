"""Raw result lines to priced columns, in the order of the rows."""
