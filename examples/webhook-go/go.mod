module webhook-go

go 1.22
