"""What tests share: databases, real processes, a faulty network, and waiting on conditions."""
