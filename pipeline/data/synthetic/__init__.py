"""Made-up recordings with known answers: nobody's brain, but the shapes, scales and faults of real ones."""
