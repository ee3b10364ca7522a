"""From the scores of every model to numbers: metrics, test sets and protocols, tables."""
