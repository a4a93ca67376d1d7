"""The API's own words: one bounded request, and what its answer says."""
