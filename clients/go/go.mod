module guarded

go 1.19
