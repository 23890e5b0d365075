"""From what the tests said to what people and machines read: results.json, junit.xml, the page, the table, the verdict."""
