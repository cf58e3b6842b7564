module squall.dev/shop

go 1.21
