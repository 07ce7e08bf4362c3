module beatkeeper.dev/tests/node/greeter

go 1.26.0
