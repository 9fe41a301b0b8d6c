"""Pages, pictures and the model card; imports evaluation and what lies below it."""
