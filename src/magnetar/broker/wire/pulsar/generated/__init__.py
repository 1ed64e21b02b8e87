"""Made by `make proto` from PulsarApi.proto; not edited by hand."""
