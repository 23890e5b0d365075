"""Results of the tests in forms for people and machines: results.json, junit.xml, the page, the table, the verdict."""
