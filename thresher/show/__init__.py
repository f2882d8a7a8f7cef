"""What people look at: tables, figures, the view of survivors."""
