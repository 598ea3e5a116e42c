"""Numbers that others have printed: `tables` reads and checks them, `claims` judges what they claim."""
