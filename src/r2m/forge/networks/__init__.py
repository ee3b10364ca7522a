"""Neural generators that forgeries use: their networks, run on the CPU in float32."""
