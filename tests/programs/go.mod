module squall.dev/tests/programs

go 1.19
