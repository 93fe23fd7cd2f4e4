"""Which plan?"""
