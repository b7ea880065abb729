"""What `ragloop doctor` looks at: one function a check, which reads and changes nothing."""
