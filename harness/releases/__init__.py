"""The same judgement under other releases of packages: which release broke a checkpoint?"""
