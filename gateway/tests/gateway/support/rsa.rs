//! A pair of RSA keys that signs tokens of tests and nothing else. ring makes no such keys.

/// The private key: PKCS#1 as DER, in base64.
pub const PRIVATE: &str = "\
    MIIEowIBAAKCAQEA1F2cN9KA81fcBI9plB4GDrPDZ1bUs1NVddS04hQCPadO1xydIP+v/Jyzj8CP3dHRao/9SzTPb+/QYwPwv+vF\
    Pebx3OU5yRsGgfMk6zRAChvwdsnq35/mxV4Ukotx4BMKMRpX19vNdiWOrM0wdOTPBAytLVbBaHEIxy9NPTnfuGhGacd9Nq+eGq4W\
    TvlSQzIHFWRuExn0mT/3e1+DbGX9HZTgcWnOPZxR5dhiNLaP/QnOWpJ4yJBNo/l2J3Bodugpl3uGf0hcDHe0sPLdFhQLCUgmv+hD\
    S2GzHZ6gKqd+Bl3iWPPE7dp8CI8/LNYD3+jxhBMfhYWJxGLgnM33jNfgpwIDAQABAoIBAAXXP0Uvxnkq6PO9KAe5XaxI2G5+rmHy\
    QE751zHCoB8m+12iPVYbgjEd9DhXcP2GWE6ogCxx2uS2wVH/2T7GEso1kGBlc5Xq5t5rHBBWAw7kHtR9kDavVK8H++Pd7vddPrIE\
    Cfd3ZarCtK5fBF6qrmDrolW1ZaNkPHwR+ntdHKCbPMUdhImrvw8k//+TGEzTUzCayPUKfvv25tQRgiSTBBHS3iDKh7EuR8/4Hyy0\
    bbr8Vt60eUCv4Pct784JmokNhETk88nnUztxgx0jvJc7Zvv8hnk0AatRj0P2GW5/leLHbgTOY6r+oEjkZrW4vduPHTU5sWjYRSq9\
    FBgyBy0xU9ECgYEA6T92MgTKUqb5d2SiZyzXYZOdH+Iv9yAPADybobrFMtdIUbx62D8tXeYXMRqRiE2jbKXy70SXIJHPBGwmVMEa\
    6cUu96wmzsvKvmG1Qq1VhmUutvo9z6nTgbv+4ww64AXtyY1/5p5ZRnxlnacSzAMJZzq54oarHblgFhjGykhsWdcCgYEA6RSwW5Ju\
    q9TXnBB1wWoPXwBlubqK+MrNAngqm08KS1O6tGRP0waajkYQ/UmjKErD7PRqJEzHKV67K4EASOBUsgWuPr48uvJQbLye/+PzrP3t\
    xQaS9vU/JOFS2PEdqvH6Pq6QRu2tw+zIwWPBJchs9YnFXwFQKLjQibakfNdF9bECgYABrSIVU/F8TJToZcHBChJ2MhBkBUUg+osB\
    Dm5z6Bq4tdFgPQGJAlM6JIgwIye+mgg9pKetTonjgwjA2GIiI80ktvUSdJtGyzIm0h7yXrqJn7qJOB0vm+HYQdigGxtlNsWxuCGe\
    L68mkYhNbMD21GLB6ish1KPwL7/gCMeM9p5IuwKBgFNe9R4sKK4J+f123cgLOehPahOfKCqJz/78ILFg+lurXXM9FlhzWkFdyqHu\
    /w9gfuh5HKZTWEHyAp0zDXkD1QfAhG0o+uwb1KywY2dAkF7mjXAWQ+dWHfoBJvM2e9gzqcFWC4Fzbt5QChcyqVnscRz65MBw5c1L\
    HjzEOd312q5hAoGBAM3gf1iJnruQcj3O6Tit1m9xDnIZYTYa7kGOlv6pUjJyNILat9wrZIEqEWgTFpqETvT6vey5W90srQpR3GUO\
    8LLU+Xkp6GUv1ovmVjc4PS3kIQtSwyjnx7pHeCXda+V2st2s9Mi2qbP1NvbrSPVDW8yEzPvD2GQbOzFhA79ed4Gc\
";

/// The modulus of the public key, as a JSON Web Key has it. The exponent is AQAB.
pub const MODULUS: &str = "\
    1F2cN9KA81fcBI9plB4GDrPDZ1bUs1NVddS04hQCPadO1xydIP-v_Jyzj8CP3dHRao_9SzTPb-_QYwPwv-vFPebx3OU5yRsGgfMk\
    6zRAChvwdsnq35_mxV4Ukotx4BMKMRpX19vNdiWOrM0wdOTPBAytLVbBaHEIxy9NPTnfuGhGacd9Nq-eGq4WTvlSQzIHFWRuExn0\
    mT_3e1-DbGX9HZTgcWnOPZxR5dhiNLaP_QnOWpJ4yJBNo_l2J3Bodugpl3uGf0hcDHe0sPLdFhQLCUgmv-hDS2GzHZ6gKqd-Bl3i\
    WPPE7dp8CI8_LNYD3-jxhBMfhYWJxGLgnM33jNfgpw\
";
