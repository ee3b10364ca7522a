"""What readers see: tables, figures, cards and pages."""
