"""How events become sequences: shapes, feedback, generation; and all answers computed offline."""
