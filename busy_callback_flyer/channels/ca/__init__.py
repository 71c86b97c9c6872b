CAArray = CABusy = CACount = None
